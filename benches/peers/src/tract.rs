//! `x w^T` by the kernel that tract-linalg would choose, as its network would: weights packed before, inputs packed in
//! every call.

use tract_data::prelude::{Datum, Tensor};
use tract_linalg::{
    MmmDispatch,
    mmm::{AsInputValue, FusedSpec, Query},
};

use crate::{Contender, Result, shapes::Shape};

/// Of row-major `x` and `w`, with sums of type `Sum`; `floats` makes numbers of these.
pub fn product<T, Sum>(
    (m, n, k): Shape,
    x: &[T],
    w: &[T],
    floats: impl Fn(&[Sum]) -> Vec<f32> + 'static,
) -> Result<Contender>
where
    T: Datum + Copy,
    Sum: Datum + Copy + num_traits::Zero,
{
    // The weights are its left matrix, so that one input is a column.
    let query = Query { allow_extractor: false, ..Query::plain(Sum::datum_type(), Some(n), Some(k), Some(m)) };
    let (kernel, packing, _) = MmmDispatch::native().pick(&query).ok_or("tract-linalg has no kernel")?;
    let (x, w) = (Tensor::from_shape(&[m, k], x)?, Tensor::from_shape(&[n, k], w)?);
    let w = kernel.packings()[packing].0.prepare_one(&w, 1, 0)?;
    let mut y = Tensor::zero::<Sum>(&[m, n])?;
    // SAFETY: used with this kernel only.
    let mut scratch = unsafe { kernel.allocate_scratch_space() };
    Ok(Contender::new(format!("tract-linalg, {}", kernel.name()), move |result| {
        let x = kernel.packings()[packing].1.prepare_one(&x, 1, 0).expect("a matrix of the type asked for");
        let (a, b) = (AsInputValue::Borrowed(&*w), AsInputValue::Borrowed(&*x));
        // SAFETY: both are packed for this kernel and of its shapes, and `y` has n columns and m rows.
        unsafe {
            let y = kernel.c_view(Some(1), Some(0)).wrap(&y.view_mut());
            let steps = [FusedSpec::AddMatMul { a, b, packing }, FusedSpec::Store(y)];
            kernel.run_with_scratch_space(n, m, scratch.as_mut(), &steps).expect("shapes that fit");
        }
        if let Some(result) = result {
            *result = floats(y.try_as_plain_ram().and_then(|y| y.as_slice()).expect("a plain tensor of sums"));
        }
    }))
}
