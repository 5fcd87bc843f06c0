//! One-dimensional k-means: the optimum by dynamic programming, and scikit-learn's.

use tersor::{Error, Quantizer, quantize::kmeans_1d};

use crate::case::family;

#[test]
fn inertia_is_the_optimum_and_centroids_are_its_own() {
    let cases = family("kmeans");
    assert_eq!(cases.len(), 29);
    for case in cases {
        let x = case.input("x");
        let k = case.number("k").unwrap() as usize;
        let distinct = case.number("distinct").unwrap() as usize;
        let found = kmeans_1d(x.as_slice().unwrap(), None, k);
        if k > distinct {
            // Asking for clusters that nothing can fill is refused; the quantizer below leaves levels out.
            assert!(matches!(found, Err(Error::Clusters { .. })), "{}", case.id);
            continue;
        }
        let found = found.unwrap();
        let optimum = case.output("optimal_inertia").sum();
        let slack = 1e-5 * optimum + 1e-12;
        assert!((found.inertia - optimum).abs() <= slack, "{}: {} {optimum}", case.id, found.inertia);
        let sklearn = case.output("sklearn_inertia").sum() * (1.0 + case.tolerance().unwrap());
        assert!(found.inertia <= sklearn + slack, "{}: {} {sklearn}", case.id, found.inertia);

        assert_eq!(found.centroids.len(), k, "{}", case.id);
        let centroids = case.output("optimal_centroids");
        assert_eq!(centroids.len(), k, "{}", case.id);
        for (found, expected) in found.centroids.iter().zip(centroids) {
            assert!((found - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{}: {found} {expected}", case.id);
        }
    }
}

#[test]
fn the_quantizer_reaches_the_same_inertia() {
    for case in family("kmeans") {
        let k = case.number("k").unwrap();
        if k < 2.0 {
            continue; // one level is less than one bit
        }
        let x = case.input("x");
        let q = Quantizer::kmeans(k.log2() as u8).apply(&x).unwrap();
        let inertia: f64 = x.iter().zip(&q.dequantize()).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
        let optimum = case.output("optimal_inertia").sum();
        assert!((inertia - optimum).abs() <= 1e-5 * optimum + 1e-12, "{}: {inertia} {optimum}", case.id);
    }
}
