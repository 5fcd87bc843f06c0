//! How the losses of rows become one number.

use super::Outputs;

/// What the sum of the rows' losses is divided by. Toolkits differ here, and a weight tuned in one is off by a factor in
/// another: for logits (batch, classes) the factor is 1 or `classes`.
///
/// | convention | divisor | the same as |
/// |---|---|---|
/// | [`BatchMean`](Reduction::BatchMean) | the batch axis | torch `kl_div(reduction="batchmean")`; mdistiller, RepDistiller, torchdistill, modelopt |
/// | [`RowMean`](Reduction::RowMean) | rows: batch, or batch times sequence | torch `cross_entropy(reduction="mean")` without class weights |
/// | [`Mean`](Reduction::Mean) | all elements | torch `mse_loss` and `kl_div(reduction="mean")`; DeiT |
/// | [`Sum`](Reduction::Sum) | 1 | torch `reduction="sum"` |
/// | [`WeightedMean`](Reduction::WeightedMean) | the sum of the sample weights | a weighted mean of rows |
///
/// Every loss says which is its default: that of its source. Sample weights multiply a row's loss before the division, and change the divisor in `WeightedMean` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// The length of the batch axis.
    #[default]
    BatchMean,
    /// The number of rows.
    RowMean,
    /// The number of elements.
    Mean,
    /// Nothing.
    Sum,
    /// The sum of the sample weights; the loss of weights that are all 0 is 0.
    WeightedMean,
}

impl Reduction {
    /// Whether a sample weight multiplies its row's loss alone.
    pub(super) fn weighs_samples(self) -> bool {
        self != Reduction::WeightedMean
    }

    pub(super) fn divisor(self, outputs: &Outputs<'_>) -> f64 {
        let rows = outputs.student.nrows() as f64;
        match self {
            Reduction::BatchMean => outputs.batch as f64,
            Reduction::RowMean => rows,
            Reduction::Mean => outputs.student.len() as f64,
            Reduction::Sum => 1.0,
            Reduction::WeightedMean => {
                let sum = outputs.sample_weights.map_or(rows, |weights| weights.iter().sum());
                if sum > 0.0 { sum } else { 1.0 }
            }
        }
    }
}
