//! What a worker says of the models that it serves: names, versions, aliases, inputs, labels.
//!
//! Made by `worker`, read by `client`; sealed in between. Which tenant may know of which model is decided elsewhere.

use serde::{Deserialize, Serialize};

use super::tensor_spec::TensorSpec;

/// One worker's word, for one tenant. Members that a later version adds are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// The worker: a random word of one life of its process.
    pub instance: String,
    /// Counts the words of this worker; only a later one is believed.
    pub sequence: u64,
    /// Whether it stops: its models are gone with it.
    #[serde(default)]
    pub leaving: bool,
    /// Whether these are all its models that the tenant may use; there may be too many for one message.
    pub complete: bool,
    /// The models, by name.
    pub models: Vec<AnnouncedModel>,
}

/// A model with its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedModel {
    /// Its name.
    pub name: String,
    /// Its versions, the lowest first.
    pub versions: Vec<AnnouncedVersion>,
    /// Which versions answer the jobs that name none.
    #[serde(default)]
    pub aliases: Vec<AnnouncedAlias>,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedVersion {
    /// Its number.
    pub version: u32,
    /// What it does, in a sentence; may be left out for its length.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The inputs that a request must hold, the axis of rows first.
    pub inputs: Vec<TensorSpec>,
    /// The outputs that it may ask for, those answered by default first.
    pub outputs: Vec<String>,
    /// A classifier's labels, in the order of its classes; may be left out for their length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How many labels there are.
    pub label_count: usize,
}

/// A name for a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedAlias {
    /// The alias.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// What it gets of the jobs that name no version.
    pub share: f64,
}

impl Announcement {
    /// As JSON of at most `max_bytes`. What is too long loses its labels, then its descriptions, then the last of its models.
    ///
    /// # Errors
    /// When it cannot be written at all.
    pub fn encode(mut self, max_bytes: usize) -> Result<Vec<u8>, serde_json::Error> {
        let versions = |models: &mut Vec<AnnouncedModel>, shorten: fn(&mut AnnouncedVersion)| {
            models.iter_mut().flat_map(|model| &mut model.versions).for_each(shorten);
        };
        let mut written = serde_json::to_vec(&self)?;
        if written.len() > max_bytes {
            versions(&mut self.models, |version| version.labels.clear());
            written = serde_json::to_vec(&self)?;
        }
        if written.len() > max_bytes {
            versions(&mut self.models, |version| version.description.clear());
            written = serde_json::to_vec(&self)?;
        }
        while written.len() > max_bytes && !self.models.is_empty() {
            self.complete = false;
            self.models.truncate(self.models.len() / 2);
            written = serde_json::to_vec(&self)?;
        }
        Ok(written)
    }

    /// Reads one; nothing where it is none.
    #[must_use]
    pub fn decode(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tensor::Datatype;

    fn announcement(models: usize, labels: usize) -> Announcement {
        let version = AnnouncedVersion {
            version: 1,
            description: "what it does".repeat(10),
            inputs: vec![TensorSpec { name: "text".into(), datatype: Datatype::Bytes, shape: vec![-1] }],
            outputs: vec!["label".into()],
            labels: (0..labels).map(|label| format!("label-{label}")).collect(),
            label_count: labels,
        };
        let model = |number| AnnouncedModel {
            name: format!("m{number}"),
            versions: vec![version.clone()],
            aliases: vec![AnnouncedAlias { name: "stable".into(), version: 1, share: 0.0 }],
        };
        let models = (0..models).map(model).collect();
        Announcement { instance: "i".into(), sequence: 7, leaving: false, complete: true, models }
    }

    #[test]
    fn what_is_written_is_read_and_unknown_members_are_passed_over() {
        let said = announcement(3, 5);
        let json = said.clone().encode(1 << 20).unwrap();
        assert_eq!(Announcement::decode(&json).unwrap(), said);
        let later = String::from_utf8(json).unwrap().replacen('{', r#"{"region":"north","#, 1);
        assert_eq!(Announcement::decode(later.as_bytes()).unwrap(), said);
        assert_eq!(Announcement::decode(b"[]"), None);
    }

    #[test]
    fn what_is_too_long_loses_labels_then_words_then_models_and_says_so() {
        let whole = announcement(20, 1_000);
        let length = |bytes: usize| {
            let json = whole.clone().encode(bytes).unwrap();
            assert!(json.len() <= bytes, "{} of {bytes}", json.len());
            Announcement::decode(&json).unwrap()
        };
        let unlabelled = length(100_000);
        assert!(unlabelled.complete && unlabelled.models.len() == 20);
        assert!(unlabelled.models.iter().all(|model| model.versions[0].labels.is_empty()));
        assert!(unlabelled.models.iter().all(|model| model.versions[0].label_count == 1_000));
        let wordless = length(5_000);
        assert!(wordless.complete && wordless.models.iter().all(|model| model.versions[0].description.is_empty()));
        let cut = length(1_000);
        assert!(!cut.complete && !cut.models.is_empty() && cut.models.len() < 20);
    }
}
