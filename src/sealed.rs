//! The identity bound that lets constructors be called on a trait: `Quantizer::uniform(8)`.

/// `T: Is<T>` for every `T` and nothing else: a constructor bounded by it makes exactly the built-in type.
#[diagnostic::on_unimplemented(message = "this constructor makes the built-in `{Self}`, not `{T}`")]
pub trait Is<T>: seal::Sealed<T> {
    /// Returns `self`, unchanged.
    fn is(self) -> T;
}

impl<T> Is<T> for T {
    fn is(self) -> T {
        self
    }
}

mod seal {
    #[allow(unreachable_pub)] // the usual sealing: public by type, out of reach by path
    pub trait Sealed<T> {}
    impl<T> Sealed<T> for T {}
}
