//! Losses behind pointers.

use std::sync::Arc;

use ndarray::ArrayD;

use super::{Distiller, Loss, Signals};
use crate::error::Result;

macro_rules! behind {
    ($($pointer:ident),*) => {$(
        impl<D: Distiller + ?Sized> Distiller for $pointer<D> {
            fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
                (**self).apply(signals)
            }

            fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
                (**self).parameters(student, teacher, seed)
            }

            fn parameters_between(
                &self,
                student: [&[usize]; 2],
                teacher: [&[usize]; 2],
                seed: u64,
            ) -> Result<Vec<(String, ArrayD<f64>)>> {
                (**self).parameters_between(student, teacher, seed)
            }

            fn temperature(&self, progress: f64) -> f64 {
                (**self).temperature(progress)
            }

            fn compares_channels(&self) -> bool {
                (**self).compares_channels()
            }

            fn weighs_samples(&self) -> bool {
                (**self).weighs_samples()
            }
        }
    )*};
}

behind!(Arc, Box);
