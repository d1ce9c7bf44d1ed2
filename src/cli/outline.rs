//! `segslurm config --check`: what each part of the model makes of an image, and what it costs.

use burn::tensor::Device;

use crate::exit::Failure;
use crate::experiment::Experiment;
use crate::models::Part;

/// The table for images of `shape` (height, width), or of the size that the model is trained with.
pub(super) fn table(experiment: &Experiment, shape: Option<[usize; 2]>) -> Result<String, Failure> {
    let size = shape.unwrap_or_else(|| experiment.trained_size());
    let segmentor = experiment.model.init(&Device::libtorch().autodiff(), 0)?;
    let parts = segmentor.outline(size);
    let mut rows =
        vec![["part", "gives", "parameters", "trained", "multiply-adds"].map(str::to_owned)];
    rows.extend(parts.iter().map(row));
    rows.push(total("in training", &parts, |_| true));
    rows.push(total("in tests", &parts, |it| it.in_tests));
    let title = format!("one image of {}x{} pixels (height x width):\n", size[0], size[1]);
    Ok(title + &aligned(&rows))
}

/// The sums over some parts.
fn total(name: &str, parts: &[Part], counts: impl Fn(&Part) -> bool) -> [String; 5] {
    let counted = || parts.iter().filter(|it| counts(it));
    let parameters: usize = counted().map(|it| it.parameters).sum();
    let trained: usize = counted().map(|it| it.trained).sum();
    let cost: u64 = counted().map(|it| it.multiply_adds).sum();
    let [parameters, trained, cost] = [parameters as f64, trained as f64, cost as f64].map(number);
    [name.to_owned(), String::new(), parameters, trained, cost]
}

fn row(part: &Part) -> [String; 5] {
    let shape = |[_, channels, height, width]: &[usize; 4]| format!("{channels}x{height}x{width}");
    let gives = part.outputs.iter().map(shape).collect::<Vec<_>>().join(", ");
    let [parameters, trained, cost] =
        [part.parameters as f64, part.trained as f64, part.multiply_adds as f64].map(number);
    [part.name.clone(), gives, parameters, trained, cost]
}

/// With three figures and the letter that engineers read: `48.97 M`, `178.9 G`.
fn number(value: f64) -> String {
    let units = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    let (unit, letter) = units.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1.0, ""));
    let scaled = value / unit;
    let decimals = match scaled {
        _ if letter.is_empty() => 0,
        _ if scaled < 10.0 => 3,
        _ if scaled < 100.0 => 2,
        _ => 1,
    };
    format!("{scaled:.decimals$}{letter}")
}

/// Columns of one width each; numbers to the right.
fn aligned(rows: &[[String; 5]]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |row: &[String; 5]| {
        let cell = |column: usize| {
            let width = widths[column];
            if column < 2 {
                format!("{:<width$}", row[column])
            } else {
                format!("{:>width$}", row[column])
            }
        };
        [0, 1, 2, 3, 4].map(cell).join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_letters() {
        let told = [0.0, 999.0, 1500.0, 48_967_334.0, 178.9e9, 2.5e12].map(number);
        assert_eq!(told, ["0", "999", "1.500 k", "48.97 M", "178.9 G", "2.500 T"]);
    }
}
