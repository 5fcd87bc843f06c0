//! Lists the instruction sets that the kernels can use on this machine, one a line; `TERSOR_ISA` pins one.

fn main() {
    for isa in tersor::Isa::available() {
        println!("{isa}");
    }
}
