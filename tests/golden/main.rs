//! Golden vectors: what the reference implementations computed (see `data/index.json` for versions), case by case.
//! Every case of a family runs, at the comparison that the index names.

mod affine;
mod attention;
mod case;
mod distill;
mod distill_features;
mod distill_relations;
mod kmeans;
mod nf4;
mod nn;
mod observers;
mod onnx;
mod optim;
mod prune;
