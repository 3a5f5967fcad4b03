//! What may be told of the models of a repository to those who use them.

use super::{LoadedModel, ModelRepository};
use crate::protocol::announcement::{AnnouncedAlias, AnnouncedModel, AnnouncedVersion};

impl ModelRepository {
    /// Every model that is served, with its versions and aliases, whether they are in memory or not.
    #[must_use]
    pub fn announced(&self) -> Vec<AnnouncedModel> {
        let snapshot = self.snapshot();
        let models = snapshot.models.iter().map(|(name, served)| AnnouncedModel {
            name: name.clone(),
            versions: served.versions.values().map(|slot| slot.announced.clone()).collect(),
            aliases: served
                .aliases
                .iter()
                .map(|(name, alias)| AnnouncedAlias { name: name.clone(), version: alias.version, share: alias.share })
                .collect(),
        });
        models.collect()
    }
}

impl LoadedModel {
    /// What a producer has to know of it.
    pub(super) fn announced(&self) -> AnnouncedVersion {
        let spec = self.spec();
        AnnouncedVersion {
            version: spec.version,
            description: spec.description.clone(),
            inputs: spec.preprocess.request_inputs(&spec.inputs),
            outputs: self.output_names().into_iter().map(str::to_owned).collect(),
            labels: self.labels().to_vec(),
            label_count: self.labels().len(),
        }
    }
}
