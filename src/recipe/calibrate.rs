//! Fixed grids for the inputs of quantized layers, from calibration data.

use ndarray::{ArrayD, ArrayViewD};

use crate::{
    compressed::{Compressed, add_residual, join},
    error::{Error, Result},
    nn::{Attention, Layer, Network},
    packed::Activations,
    quantize::{
        Rounding, SymmetricScale, Uniform, ZeroInRange,
        observe::{Histogram, Observer},
    },
    tensor::Granularity,
};

/// Runs the float network on the inputs, watches what goes into each quantized layer, and sets its grid.
pub(super) fn set_input_grids(
    compressed: &mut Compressed,
    network: &Network,
    inputs: ArrayViewD<'_, f32>,
    scheme: &Uniform,
) -> Result<()> {
    let convention = scheme.conventions();
    let granular = scheme.grouping() != Granularity::Tensor;
    if granular
        || convention.zero_in_range != ZeroInRange::Always
        || convention.symmetric_scale == SymmetricScale::SignedMax
        || convention.rounding != Rounding::HalfEven
    {
        return Err(Error::Conflict {
            what: format!("kernels cannot round inputs as {scheme:?} does"),
            remedy: "give static_activations one scale for all, above 0, with zero in its range and halves to even",
        });
    }
    let mut seen = Vec::new();
    observe(network, "", inputs.to_owned(), &|layer| compressed.scheme(&join(layer, "weight")).is_some(), &mut seen)?;
    for (layer, histogram) in seen {
        let grid = histogram.fit(scheme).map_err(|e| e.in_layer(&layer))?;
        if grid.codes().bits() != 8 {
            let bits = grid.codes().bits();
            return Err(Error::Bits { bits, scheme: "Recipe::static_activations", allowed: "8" });
        }
        let (scale, zero) = (grid.scale()[0], grid.zero_point()[0]);
        // Kernels take signed codes; an unsigned grid is the same grid, counted from -128.
        let zero_point = if grid.codes().lowest() < 0 { zero } else { zero - 128 };
        compressed.set_activations(&layer, Activations::Static { scale, zero_point })?;
    }
    Ok(())
}

fn observe(
    network: &Network,
    prefix: &str,
    mut x: ArrayD<f32>,
    wanted: &dyn Fn(&str) -> bool,
    seen: &mut Vec<(String, Histogram)>,
) -> Result<ArrayD<f32>> {
    for (name, layer) in network.layers() {
        let name = join(prefix, name);
        let products = match layer {
            Layer::Attention(_) => Attention::PARTS.map(|part| join(&name, part)).to_vec(),
            _ => vec![name.clone()],
        };
        for product in products.into_iter().filter(|product| wanted(product)) {
            let mut histogram = Histogram::new();
            let observed = match layer {
                Layer::Attention(attention) if product.ends_with(".output") => {
                    attention.head_outputs(&x).and_then(|heads| histogram.observe(&heads))
                }
                _ => histogram.observe(&x),
            };
            observed.map_err(|e| e.in_layer(&product))?;
            seen.push((product, histogram));
        }
        x = match layer {
            Layer::Residual(residual) => {
                let branch = observe(residual.branch(), &name, x.clone(), wanted, seen)?;
                add_residual(branch, &x).map_err(|e| e.in_layer(&name))?
            }
            layer => layer.forward(&x).map_err(|e| e.in_layer(&name))?,
        };
    }
    Ok(x)
}
