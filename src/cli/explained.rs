//! An explained answer for people: the text with its words in colours, and the words that weigh most. Used by `submit`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::protocol::response::InferenceResponse;
use crate::protocol::tensor::TensorData;

/// Words that are listed by their weight.
const LISTED: usize = 8;
/// Shades of each colour.
const SHADES: f32 = 5.0;

/// A token where it stands in its text, and what it adds to the probability of the label.
struct Word<'a> {
    start: usize,
    end: usize,
    token: &'a [u8],
    weight: f32,
}

fn read(response: &InferenceResponse) -> Option<Vec<Word<'_>>> {
    let output =
        |name: &str| response.outputs.iter().find(|output| output.name == name).map(|output| output.tensor.elements());
    let (TensorData::Fp32(weights), TensorData::Bytes(tokens), TensorData::Uint64(offsets)) =
        (output("attributions")?, output("tokens")?, output("offsets")?)
    else {
        return None;
    };
    let words = weights.iter().zip(tokens).zip(offsets.chunks_exact(2)).map(|((weight, token), place)| {
        let at = |index: usize| place.get(index).and_then(|at| usize::try_from(*at).ok()).unwrap_or_default();
        Word { start: at(0), end: at(1), token, weight: *weight }
    });
    Some(words.collect())
}

/// The words of an explained answer for programs; nothing where there are none.
pub(super) fn weighed(response: &InferenceResponse) -> Option<Value> {
    let one = |word: Word<'_>| {
        let text = String::from_utf8_lossy(word.token).into_owned();
        json!({"word": text, "start": word.start, "end": word.end, "attribution": word.weight})
    };
    Some(read(response)?.into_iter().map(one).collect())
}

/// The text `id` with its words in colours, and the words that weigh most; without colours where nobody sees them.
pub(super) fn words(id: &str, text: &str, response: &InferenceResponse, in_colour: bool) -> String {
    let Some(words) = read(response) else { return String::new() };
    let explained = response.parameters.get("explain");
    let member = |name: &str| explained.and_then(|explained| explained.get(name));
    let label = member("label").and_then(Value::as_str).unwrap_or_default();
    let runs = member("runs").and_then(Value::as_u64).unwrap_or_default();
    let mut page = format!("\n{id}: why {label} ({runs} model runs)\n");
    let most = words.iter().map(|word| word.weight.abs()).fold(0.0, f32::max);
    if in_colour {
        let mut told = 0;
        for word in &words {
            let (before, own) = (text.get(told..word.start), text.get(word.start..word.end));
            let (Some(before), Some(own)) = (before, own) else { continue };
            page += &plain(before);
            page += &coloured(&plain(own), word.weight, most);
            told = word.end;
        }
        page += &plain(text.get(told..).unwrap_or_default());
        page += "\n";
    }
    let mut ranked: Vec<&Word<'_>> = words.iter().collect();
    ranked.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    for word in ranked.iter().take(LISTED) {
        _ = writeln!(page, "  {:+.4}  {}", word.weight, plain(&String::from_utf8_lossy(word.token)));
    }
    page
}

/// `text` without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A word on green where it speaks for the label, on red where it speaks against; the stronger, the darker.
fn coloured(word: &str, weight: f32, most: f32) -> String {
    let shade = if most > 0.0 { (weight.abs() / most * SHADES).round().clamp(0.0, SHADES) as u8 } else { 0 };
    if shade == 0 {
        return word.to_owned();
    }
    // The cube of 256 colours: 16 + 36 red + 6 green + blue, each from 0 to 5.
    let colour = if weight > 0.0 { 16 + 6 * shade } else { 16 + 36 * shade };
    // Black on the bright greens, white on the rest.
    let ink = if weight > 0.0 && shade > 2 { 16 } else { 231 };
    format!("\x1b[48;5;{colour};38;5;{ink}m{word}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::protocol::response::InferOutput;
    use crate::protocol::tensor::Tensor;

    fn response() -> InferenceResponse {
        let output = |name: &str, shape: Vec<usize>, elements| InferOutput {
            name: name.into(),
            tensor: Tensor::new(shape, elements).unwrap(),
            binary_data: false,
        };
        let outputs = vec![
            output("attributions", vec![1, 2], TensorData::Fp32(vec![0.5, -0.1])),
            output("tokens", vec![1, 2], TensorData::Bytes(vec![b"goalie".to_vec(), b"bus".to_vec()])),
            output("offsets", vec![1, 2, 2], TensorData::Uint64(vec![4, 10, 15, 18])),
        ];
        let parameters = Map::from_iter([("explain".to_owned(), json!({"label": "sport", "runs": 9}))]);
        let (model_name, model_version) = ("m".into(), "1".into());
        InferenceResponse { model_name, model_version, id: None, parameters, outputs }
    }

    #[test]
    fn words_are_coloured_in_their_places_and_listed_by_weight() {
        let page = words("1", "the goalie and bus\x1b[2J", &response(), true);
        let coloured = "the \x1b[48;5;46;38;5;16mgoalie\x1b[0m and \x1b[48;5;52;38;5;231mbus\x1b[0m [2J\n";
        assert_eq!(page, format!("\n1: why sport (9 model runs)\n{coloured}  +0.5000  goalie\n  -0.1000  bus\n"));
        let page = words("1", "the goalie and bus", &response(), false);
        assert!(!page.contains('\x1b') && page.contains("+0.5000  goalie"), "{page}");
    }

    #[test]
    fn programs_get_words_with_their_places() {
        let words = weighed(&response()).unwrap();
        assert_eq!((&words[0]["word"], &words[1]["start"]), (&"goalie".into(), &15.into()));
        let none = InferenceResponse { outputs: Vec::new(), ..response() };
        assert_eq!(weighed(&none), None);
    }
}
