//! Reads the index and the tensors of one family, and compares as a case asks.

use std::{collections::BTreeMap, fs, path::PathBuf};

use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

/// One case: parameters, and its tensors by role (`x`, `scale`, `q`, ..).
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) op: String,
    pub(crate) params: Value,
    pub(crate) note: String,
    inputs: BTreeMap<String, ArrayD<f64>>,
    outputs: BTreeMap<String, ArrayD<f64>>,
    compare: Value,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data")
}

fn decode(view: &TensorView<'_>) -> ArrayD<f64> {
    let bytes = view.data();
    fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.chunks_exact(N).map(|c| f(c.try_into().unwrap())).collect()
    }
    let values = match view.dtype() {
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::I16 => each(bytes, |b| f64::from(i16::from_le_bytes(b))),
        Dtype::I8 => each(bytes, |b: [u8; 1]| f64::from(b[0] as i8)),
        Dtype::U8 | Dtype::BOOL => each(bytes, |b: [u8; 1]| f64::from(b[0])),
        other => panic!("a golden tensor of type {other:?}"),
    };
    ArrayD::from_shape_vec(IxDyn(view.shape()), values).unwrap()
}

/// All cases of a family; panics if there are none.
pub(crate) fn family(name: &str) -> Vec<Case> {
    let index: Value = serde_json::from_slice(&fs::read(folder().join("index.json")).unwrap()).unwrap();
    let bytes = fs::read(folder().join(format!("{name}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let named = |roles: &Value| -> BTreeMap<String, ArrayD<f64>> {
        let roles = roles.as_object().unwrap().iter();
        roles.map(|(role, key)| (role.clone(), decode(&tensors.tensor(key.as_str().unwrap()).unwrap()))).collect()
    };
    let cases: Vec<Case> = index["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["file"].as_str() == Some(&format!("{name}.safetensors")))
        .map(|case| Case {
            id: case["id"].as_str().unwrap().to_owned(),
            op: case["op"].as_str().unwrap().to_owned(),
            params: case["params"].clone(),
            note: case["note"].as_str().unwrap_or("").to_owned(),
            inputs: named(&case["inputs"]),
            outputs: named(&case["outputs"]),
            compare: case["compare"].clone(),
        })
        .collect();
    assert!(!cases.is_empty(), "no golden case of family {name}");
    cases
}

impl Case {
    /// A number of `params`, if it is there.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.params[key].as_f64()
    }

    /// A text of `params`, empty if it is not there.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.params[key].as_str().unwrap_or("")
    }

    pub(crate) fn has_input(&self, role: &str) -> bool {
        self.inputs.contains_key(role)
    }

    pub(crate) fn has_output(&self, role: &str) -> bool {
        self.outputs.contains_key(role)
    }

    pub(crate) fn input(&self, role: &str) -> ArrayD<f32> {
        self.inputs[role].mapv(|x| x as f32)
    }

    pub(crate) fn integers(&self, role: &str) -> Vec<i64> {
        self.inputs[role].iter().map(|x| *x as i64).collect()
    }

    pub(crate) fn output(&self, role: &str) -> &ArrayD<f64> {
        &self.outputs[role]
    }

    /// Compares one output as the index asks: exact, codes (so many may differ, by so much), or close.
    pub(crate) fn check(&self, role: &str, found: &ArrayD<f64>) {
        let expected = self.output(role);
        let what = format!("{} {role}", self.id);
        assert_eq!(found.len(), expected.len(), "{what}: length");
        if expected.ndim() > 0 && found.ndim() > 0 {
            assert_eq!(found.shape(), expected.shape(), "{what}: shape");
        }
        let mode = self.compare[role].as_str().unwrap_or_else(|| self.compare["default"].as_str().unwrap());
        let pairs = || found.iter().zip(expected.iter());
        match mode {
            "skip" => {}
            "exact" => {
                for (i, (f, e)) in pairs().enumerate() {
                    assert!(f == e, "{what}[{i}]: {f}, expected exactly {e}");
                }
            }
            "codes" => {
                let most = self.compare["max_diff"].as_f64().unwrap();
                let share = self.compare["frac"].as_f64().unwrap();
                let worst = pairs().map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
                let differing = pairs().filter(|(f, e)| f != e).count() as f64 / expected.len().max(1) as f64;
                assert!(worst <= most && differing <= share, "{what}: off by {worst}, {differing} of the codes differ");
            }
            "close" => {
                let rtol = self.compare["rtol"].as_f64().unwrap();
                let atol = self.compare["atol"].as_f64().unwrap_or(0.0);
                for (i, (f, e)) in pairs().enumerate() {
                    assert!((f - e).abs() <= atol + rtol * e.abs(), "{what}[{i}]: {f}, expected {e}");
                }
            }
            other => panic!("{what}: the comparison `{other}` is the test's own business"),
        }
    }

    /// The relative tolerance of the comparison, if it names one.
    pub(crate) fn tolerance(&self) -> Option<f64> {
        self.compare["rtol"].as_f64()
    }
}
