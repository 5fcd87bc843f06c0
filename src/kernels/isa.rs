//! Which instructions the kernels use.

use std::{fmt, sync::OnceLock};

#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2::Avx2, avx512::Avx512Vnni, avxvnni::AvxVnni};
use super::{kernel::Kernel, scalar::Scalar};
use crate::error::{Error, Result};

/// The environment variable that pins the instruction set.
const PIN: &str = "TERSOR_ISA";

/// An instruction set that this machine was found to have; it decides which kernels run.
///
/// Every set gives the same results to the bit. Packed weights keep the one that they were packed for.
///
/// ```
/// let isa = tersor::Isa::detect()?;
/// assert!(tersor::Isa::available().contains(&isa));
/// println!("int8 products run on {isa}");
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Set);

/// The kernels in each set can be made only by detection, so an `Isa` is a proof too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Set {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
}

/// Something to do with the kernel of an instruction set.
pub(super) trait Job {
    type Output;
    fn run<K: Kernel>(self, kernel: K) -> Self::Output;
}

/// Runs `f` compiled for the instructions of [`Isa::detect`], the plainest if it fails: for passes over memory, which give
/// the same bits on every set. What `f` calls must be inlined: mark it `inline(always)`.
#[inline(always)]
pub(crate) fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    struct Call<F>(F);
    impl<R, F: FnOnce() -> R> Job for Call<F> {
        type Output = R;

        #[inline(always)]
        fn run<K: Kernel>(self, kernel: K) -> R {
            kernel.vectorize(self.0)
        }
    }
    Isa::usable().run(Call(f))
}

impl Isa {
    /// The best set of this machine, or the one named by the environment variable `TERSOR_ISA`
    /// (`scalar`, `avx2`, `avxvnni` or `avx512vnni`), which is read once.
    ///
    /// # Errors
    /// [`Error::Isa`] if the variable names a set that does not exist or that this machine lacks.
    pub fn detect() -> Result<Isa> {
        static DETECTED: OnceLock<Result<Isa, String>> = OnceLock::new();
        let detected = DETECTED.get_or_init(|| match std::env::var_os(PIN) {
            None => Ok(Isa::best()),
            Some(name) => {
                let name = name.to_string_lossy();
                Isa::available().into_iter().find(|isa| isa.name() == name).ok_or_else(|| name.into_owned())
            }
        });
        let available = || Isa::available().into_iter().map(Isa::name).collect();
        detected.clone().map_err(|name| Error::Isa { name, available: available() })
    }

    /// All sets that this machine has, the best last.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)] // on other architectures
        let mut sets = vec![Set::Scalar(Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(Avx2::detect().map(Set::Avx2));
            sets.extend(AvxVnni::detect().map(Set::AvxVnni));
            sets.extend(Avx512Vnni::detect().map(Set::Avx512Vnni));
        }
        sets.into_iter().map(Isa).collect()
    }

    /// The set of [`Isa::detect`], the plainest if it fails.
    pub(crate) fn usable() -> Isa {
        Isa::detect().unwrap_or(Isa(Set::Scalar(Scalar)))
    }

    fn best() -> Isa {
        Isa::available().pop().unwrap_or(Isa(Set::Scalar(Scalar)))
    }

    /// The name, as `TERSOR_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni(_) => "avx512vnni",
        }
    }

    /// Runs a job with the kernel of this set.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            Set::Scalar(kernel) => job.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(kernel) => job.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni(kernel) => job.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni(kernel) => job.run(kernel),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_scalar_is_always_there() {
        let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
        assert_eq!(names[0], "scalar");
        assert!((1..names.len()).all(|i| !names[..i].contains(&names[i])));
    }

    #[test]
    fn an_unusable_pin_is_an_error_that_names_what_there_is() {
        // The pin is read once a process, so each case is a process: this test, run again with the variable set.
        const INNER: &str = "TERSOR_TEST_PIN";
        if let Ok(expected) = std::env::var(INNER) {
            let found = Isa::detect().map_or_else(|error| error.to_string(), |isa| isa.to_string());
            return assert!(found.starts_with(&expected), "{found}");
        }
        let this_test = "kernels::isa::tests::an_unusable_pin_is_an_error_that_names_what_there_is";
        let sets = Isa::available();
        let pins = sets.iter().map(|isa| (isa.name(), isa.name()));
        for (pin, expected) in pins.chain([("mmx", "TERSOR_ISA = `mmx`"), ("", "TERSOR_ISA = ``")]) {
            let program = std::env::current_exe().unwrap();
            let mut test = std::process::Command::new(program);
            let status = test.args(["--exact", this_test]).env(PIN, pin).env(INNER, expected).output().unwrap();
            assert!(status.status.success(), "{pin}: {status:?}");
        }
    }
}
