//! A tokenizer.json, and how much of a text it must read. The only user of the crate tokenizers.
//!
//! Called by `text` for every row. Knows nothing of requests.

use std::path::{Path, PathBuf};

use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{
    ModelWrapper, NormalizerWrapper, PostProcessor as _, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    TruncationParams,
};

/// Bytes of text for each token wanted that are read first: English has less than six.
const BYTES_PER_TOKEN: usize = 8;

/// A tokenizer's file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("tokenizer `{path}`: {fault}")]
pub struct TokenizerError {
    /// The file.
    path: PathBuf,
    /// What is wrong with it.
    fault: String,
}

/// Turns texts into ids, cut to a model's length.
#[derive(Debug)]
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    max_tokens: usize,
    /// Whether the ids of a beginning of a text, but for the last one, begin the ids of the whole.
    beginnings_suffice: bool,
}

impl TextTokenizer {
    /// Reads the file `path`, for texts of at most `max_tokens` ids, special tokens included.
    pub(super) fn load(path: &Path, max_tokens: usize) -> Result<Self, TokenizerError> {
        let fault = |fault: String| TokenizerError { path: path.to_owned(), fault };
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| fault(error.to_string()))?;
        // Cutting and padding are ours, after model.toml: one place says how long a text is.
        tokenizer.with_padding(None);
        let beginnings_suffice = is_one_id_a_word(&tokenizer);
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if special >= max_tokens {
            return Err(fault(format!(
                "adds {special} special tokens, more than max_tokens {max_tokens} leaves room for"
            )));
        }
        // The crate's own cut keeps room for the special tokens at the end.
        let truncation = TruncationParams { max_length: max_tokens, stride: 0, ..TruncationParams::default() };
        let cut = Some(truncation).filter(|_| !beginnings_suffice);
        tokenizer.with_truncation(cut).map(|_| ()).map_err(|error| fault(error.to_string()))?;
        Ok(Self { tokenizer, max_tokens, beginnings_suffice })
    }

    /// The ids of `text`, cut; none where the text has no token but special ones.
    ///
    /// # Errors
    /// What the tokenizer says; it may quote the text.
    pub(super) fn ids(&self, text: &str) -> Result<Vec<i64>, tokenizers::Error> {
        let mut bytes = self.max_tokens.saturating_mul(BYTES_PER_TOKEN);
        while self.beginnings_suffice && bytes < text.len() {
            let ids = self.all_ids(beginning(text, bytes))?;
            if ids.len() > self.max_tokens {
                return Ok(self.cut(ids));
            }
            bytes = bytes.saturating_mul(4);
        }
        Ok(self.cut(self.all_ids(text)?))
    }

    /// Where the ids of `text` stand in it, in bytes; `None` for special tokens. As many as there are ids.
    ///
    /// # Errors
    /// As [`Self::ids`].
    pub(super) fn places(&self, text: &str) -> Result<Vec<Option<(usize, usize)>>, tokenizers::Error> {
        let encoding = self.tokenizer.encode(text, true)?;
        let special = encoding.get_special_tokens_mask().iter();
        let places = encoding.get_offsets().iter().zip(special);
        let mut places: Vec<_> = places.map(|(place, special)| (*special == 0).then_some(*place)).collect();
        places.truncate(self.max_tokens);
        Ok(places)
    }

    /// The id that means the least: a mask's, else that of unknown words, where the tokenizer has either.
    pub(super) fn id_of_nothing(&self) -> Option<i64> {
        let unknown = match self.tokenizer.get_model() {
            ModelWrapper::WordLevel(model) => Some(model.unk_token.as_str()),
            ModelWrapper::WordPiece(model) => Some(model.unk_token.as_str()),
            ModelWrapper::BPE(model) => model.unk_token.as_deref(),
            ModelWrapper::Unigram(_) => None,
        };
        let id = |token: &str| self.tokenizer.token_to_id(token).map(i64::from);
        id("[MASK]").or_else(|| id("<mask>")).or_else(|| unknown.and_then(id))
    }

    fn cut(&self, mut ids: Vec<i64>) -> Vec<i64> {
        ids.truncate(self.max_tokens);
        ids
    }

    fn all_ids(&self, text: &str) -> Result<Vec<i64>, tokenizers::Error> {
        let encoding = self.tokenizer.encode_fast(text, true)?;
        let is_empty = encoding.get_special_tokens_mask().iter().all(|special| *special == 1);
        let ids = if is_empty { &[] } else { encoding.get_ids() };
        Ok(ids.iter().map(|id| i64::from(*id)).collect())
    }
}

/// The first `bytes` of `text`, or up to three less, so that no character is cut.
fn beginning(text: &str, bytes: usize) -> &str {
    let boundary = (0..=bytes).rev().find(|at| text.is_char_boundary(*at));
    boundary.and_then(|at| text.get(..at)).unwrap_or(text)
}

/// Whether `tokenizer` makes one id of every word, and finds words letter by letter: then what stands behind a word's
/// last letter cannot change its id. True only of what is known to be so.
fn is_one_id_a_word(tokenizer: &Tokenizer) -> bool {
    let normalizes_letters = matches!(tokenizer.get_normalizer(), None | Some(NormalizerWrapper::Lowercase(_)));
    let splits_at_letters = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::WhitespaceSplit(_)) => true,
        Some(PreTokenizerWrapper::Split(split)) => {
            let SplitPattern::Regex(pattern) = &split.pattern else { return false };
            split.behavior == SplitDelimiterBehavior::Removed && !split.invert && is_run_of_letters(pattern)
        }
        Some(_) | None => false,
    };
    let adds_nothing = tokenizer.get_added_vocabulary().is_empty() && tokenizer.get_post_processor().is_none();
    let is_word_level = matches!(tokenizer.get_model(), ModelWrapper::WordLevel(_));
    normalizes_letters && splits_at_letters && adds_nothing && is_word_level
}

/// Whether `pattern` is one class of letters, repeated, such as `[^a-z]+`.
fn is_run_of_letters(pattern: &str) -> bool {
    let class = pattern.strip_prefix('[').and_then(|rest| rest.strip_suffix("]+"));
    class.is_some_and(|class| !class.is_empty() && !class.contains(['[', ']', '\\', '&', '~']))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    fn topic(max_tokens: usize) -> TextTokenizer {
        TextTokenizer::load(&Path::new(ROOT).join("models/topic/1/tokenizer.json"), max_tokens).unwrap()
    }

    /// A tokenizer as BERT has it: `[CLS]` and `[SEP]` around word pieces.
    fn bert(max_tokens: usize) -> Result<TextTokenizer, TokenizerError> {
        TextTokenizer::load(&Path::new(ROOT).join("tests/fixtures/bert_tokenizer.json"), max_tokens)
    }

    /// The ids were written by the training script, which compares them with plain Python on the whole test split.
    #[test]
    fn ids_are_those_of_the_training_script() {
        let read = |name: &str| std::fs::read_to_string(format!("{ROOT}/models/topic/samples/{name}")).unwrap();
        let expected: HashMap<String, Vec<i64>> = serde_json::from_str(&read("ids.json")).unwrap();
        let topic = topic(128);
        let mut compared = 0;
        for line in read("posts.jsonl").lines() {
            let post: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(ids) = expected.get(post["id"].as_str().unwrap()) {
                assert_eq!(&topic.ids(post["text"].as_str().unwrap()).unwrap(), ids, "{}", post["id"]);
                compared += 1;
            }
        }
        assert_eq!((compared, expected.len()), (200, 200));
    }

    #[test]
    fn case_and_signs_do_not_matter() {
        let topic = topic(128);
        assert_eq!(topic.ids("Hello, WORLD! 42 times").unwrap(), topic.ids("hello world times").unwrap());
    }

    #[test]
    fn special_tokens_survive_the_cut_and_are_no_content() {
        let bert = bert(4).unwrap();
        assert!(!bert.beginnings_suffice);
        assert_eq!(bert.ids("hello world").unwrap(), [1, 4, 5, 2]);
        assert_eq!(bert.ids("hello world hello world").unwrap(), [1, 4, 5, 2]);
        assert_eq!(bert.ids("  ").unwrap(), [0_i64; 0]);
        let error = super::tests::bert(2).unwrap_err().to_string();
        assert!(error.ends_with("adds 2 special tokens, more than max_tokens 2 leaves room for"), "{error}");
    }

    /// Merges apply in the order of their ranks, and not as far as the longest piece in the vocabulary reaches: `hello` is `he` `llo`,
    /// since `l` `l` is merged before `e` `l` could be. Bytes stand for what no word has, so that nothing is unknown.
    #[test]
    fn byte_pairs_are_merged_by_rank() {
        let pieces = ["h", "e", "l", "o", "Ġ", "Ã", "©", "ll", "he", "llo", "el", "Ġhe", "Ġ,"];
        let vocabulary: HashMap<&str, usize> = pieces.iter().enumerate().map(|(id, piece)| (*piece, id)).collect();
        let described = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "post_processor": null, "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                "merges": [["l", "l"], ["h", "e"], ["ll", "o"], ["e", "l"], ["Ġ", "he"]],
            },
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, described.to_string()).unwrap();
        let pairs = TextTokenizer::load(&file, 6).unwrap();
        let of = |piece: &str| i64::try_from(vocabulary[piece]).unwrap();
        assert_eq!(pairs.ids("hello").unwrap(), [of("he"), of("llo")]);
        assert_eq!(pairs.ids("hello hello").unwrap(), [of("he"), of("llo"), of("Ġhe"), of("llo")]);
        assert_eq!(pairs.ids("hel").unwrap(), [of("he"), of("l")]);
        assert_eq!(pairs.ids("é").unwrap(), [of("Ã"), of("©")], "the bytes of a letter that no merge knows");
        assert_eq!(pairs.ids("hello hello hello hello").unwrap().len(), 6, "cut at max_tokens");
    }

    #[test]
    fn a_pattern_that_looks_around_is_not_taken_for_a_run_of_letters() {
        assert!(is_run_of_letters("[^a-z]+"));
        for pattern in ["", "[]+", r"\s+(?!\S)", "[a]+[b]+", "[a-z&&[^b]]+", "[^a-z]", r"[\b]+"] {
            assert!(!is_run_of_letters(pattern), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn the_beginning_of_a_text_gives_the_ids_of_the_whole(
            text in "([a-zA-Z]{1,12}|the|of|[0-9 .,'éßİ\u{301}]){0,120}",
            max_tokens in 1_usize..20,
        ) {
            let topic = topic_once();
            let cut = TextTokenizer { tokenizer: topic.tokenizer.clone(), max_tokens, beginnings_suffice: true };
            let mut whole = topic.all_ids(&text).unwrap();
            whole.truncate(max_tokens);
            prop_assert_eq!(cut.ids(&text).unwrap(), whole);
        }
    }

    fn topic_once() -> &'static TextTokenizer {
        static TOPIC: std::sync::OnceLock<TextTokenizer> = std::sync::OnceLock::new();
        TOPIC.get_or_init(|| {
            let topic = topic(usize::MAX);
            assert!(topic.beginnings_suffice);
            topic
        })
    }
}
