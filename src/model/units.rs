//! The parts of a row that an explanation takes away: tokens of a text, patches of an image.

use crate::batch::row::Row;
use crate::preprocess::Span;
use crate::protocol::tensor::{Tensor, TensorData};

/// Patches along each side of an image.
const PATCHES: usize = 8;

/// The parts of a row, and what takes their place.
#[derive(Debug)]
pub(super) struct Units {
    row: Row,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Tokens, at these places among the ids; each becomes the id that means nothing.
    Tokens { spans: Vec<Span>, places: Vec<usize>, nothing: i64, input: usize },
    /// Patches of rows and columns; each becomes the mean that normalising made 0.
    Patches { channels_last: bool, height: usize, width: usize },
}

impl Units {
    /// The tokens of a text; `spans` are those of all ids, `None` for special ones. `input` is the ids' place in the row.
    pub(super) fn tokens(row: Row, spans: Vec<Option<Span>>, nothing: i64, input: usize) -> Self {
        let (places, spans) = spans.into_iter().enumerate().filter_map(|(place, span)| Some((place, span?))).unzip();
        Self { row, kind: Kind::Tokens { spans, places, nothing, input } }
    }

    /// The patches of an image of `height` rows and `width` columns.
    pub(super) const fn patches(row: Row, channels_last: bool, height: usize, width: usize) -> Self {
        Self { row, kind: Kind::Patches { channels_last, height, width } }
    }

    /// How many parts there are.
    pub(super) fn count(&self) -> usize {
        self.shape().iter().product()
    }

    /// How the parts lie: in a line, or in rows and columns.
    pub(super) fn shape(&self) -> Vec<usize> {
        match &self.kind {
            Kind::Tokens { places, .. } => vec![places.len()],
            Kind::Patches { height, width, .. } => vec![PATCHES.min(*height), PATCHES.min(*width)],
        }
    }

    /// Whether the part behind one in number is its neighbour.
    pub(super) const fn have_neighbours(&self) -> bool {
        matches!(self.kind, Kind::Tokens { .. })
    }

    /// Where tokens stand in the text.
    pub(super) fn spans(&self) -> Option<&[Span]> {
        match &self.kind {
            Kind::Tokens { spans, .. } => Some(spans),
            Kind::Patches { .. } => None,
        }
    }

    /// The row with all its parts.
    pub(super) const fn whole(&self) -> &Row {
        &self.row
    }

    /// The row with those parts alone that `kept` says yes of.
    pub(super) fn masked(&self, kept: &[bool]) -> Row {
        match &self.kind {
            Kind::Tokens { places, nothing, input, .. } => {
                let hidden = || places.iter().zip(kept).filter(|(_, kept)| !**kept).map(|(place, _)| *place);
                self.changed(*input, |elements| {
                    let TensorData::Int64(ids) = elements else { return };
                    hidden().for_each(|place| ids.get_mut(place).into_iter().for_each(|id| *id = *nothing));
                })
            }
            Kind::Patches { channels_last, height, width } => {
                let size = (PATCHES.min(*height), PATCHES.min(*width));
                self.changed(0, |elements| {
                    let TensorData::Fp32(values) = elements else { return };
                    let channels = values.len() / (height * width).max(1);
                    for (at, value) in values.iter_mut().enumerate() {
                        let pixel = if *channels_last { at / channels.max(1) } else { at % (height * width) };
                        let (y, x) = (pixel / width, pixel % width);
                        let patch = (y * size.0 / height) * size.1 + x * size.1 / width;
                        if kept.get(patch) == Some(&false) {
                            *value = 0.0;
                        }
                    }
                })
            }
        }
    }

    /// The row with other elements in one of its inputs.
    fn changed(&self, input: usize, change: impl Fn(&mut TensorData)) -> Row {
        let changed = |tensor: &Tensor| {
            let (shape, mut elements) = tensor.clone().into_parts();
            change(&mut elements);
            Tensor::new(shape, elements).expect("there are as many elements as before")
        };
        let Row { inputs, length, may_be_padded } = &self.row;
        let own = |(index, tensor): (usize, &Tensor)| if index == input { changed(tensor) } else { tensor.clone() };
        let inputs = inputs.iter().enumerate().map(own).collect();
        Row { inputs, length: *length, may_be_padded: *may_be_padded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shape: &[usize], elements: TensorData) -> Row {
        Row { inputs: vec![Tensor::new(shape.to_vec(), elements).unwrap()], length: 1, may_be_padded: true }
    }

    #[test]
    fn special_tokens_are_no_parts_and_stay() {
        let span = |start: usize| Some(Span { start, end: start + 1, text: "x".into() });
        let spans = vec![None, span(0), span(2), None];
        let units = Units::tokens(row(&[4], TensorData::Int64(vec![101, 7, 8, 102])), spans, 1, 0);
        assert_eq!((units.count(), units.shape()), (2, vec![2]));
        assert_eq!(units.masked(&[false, true]).inputs[0].elements(), &TensorData::Int64(vec![101, 1, 8, 102]));
        assert_eq!(units.masked(&[false, false]).inputs[0].elements(), &TensorData::Int64(vec![101, 1, 1, 102]));
        assert_eq!(&units.masked(&[true, true]), units.whole());
    }

    #[test]
    fn a_patch_goes_in_all_channels_whatever_the_layout() {
        for channels_last in [false, true] {
            let shape = if channels_last { [16, 16, 3] } else { [3, 16, 16] };
            let units = Units::patches(row(&shape, TensorData::Fp32(vec![1.0; 768])), channels_last, 16, 16);
            assert_eq!(units.shape(), [8, 8]);
            let mut kept = vec![true; 64];
            kept[9] = false;
            let masked = units.masked(&kept);
            let TensorData::Fp32(values) = masked.inputs[0].elements() else { panic!("floats were expected") };
            assert_eq!(values.iter().filter(|value| **value == 0.0).count(), 2 * 2 * 3);
            let at = |y: usize, x: usize| {
                if channels_last { values[(y * 16 + x) * 3 + 1] } else { values[256 + y * 16 + x] }
            };
            assert_eq!([at(1, 1), at(2, 2), at(3, 3), at(4, 4)], [1.0, 0.0, 0.0, 1.0]);
        }
    }
}
