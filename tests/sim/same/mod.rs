//! The models are held to the real servers: the same questions to both, and the same answers of both.

mod kafka;
mod postgres;
mod wire;

/// A question, and its answer.
type Told<T> = (String, T);

fn are_same<T: PartialEq + std::fmt::Debug>(model: &[Told<T>], real: &[Told<T>], least: usize) {
    let differ: Vec<_> = model.iter().zip(real).filter(|(model, real)| model != real).collect();
    assert!(differ.is_empty(), "of the model, and of the real one: {differ:#?}");
    assert_eq!(model.len(), real.len());
    assert!(model.len() > least, "{model:#?}");
}
