//! `inferq models list --remote`: the models that workers say they serve, as the tenant who asks may use them.

use std::time::Duration;

use crate::broker::amqp::pool::ChannelPool;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{print_json, print_table};
use crate::cli::submit::tenant_or_only;
use crate::cli::{Context, block_on};
use crate::client::{RemoteModel, RemoteVersion, discover};
use crate::envelope::ProducerKeys;
use crate::protocol::tensor_spec::TensorSpec;

/// How long answers are waited for where the settings have clients not ask.
const DEFAULT_WAIT: Duration = Duration::from_millis(500);
/// Labels that a row shows.
const SHOWN_LABELS: usize = 5;

/// Asks the workers, and prints what they answer.
pub(super) fn list(tenant: Option<&String>, json: bool, context: &Context) -> Result<(), Failure> {
    let settings = &context.settings;
    let keys = ProducerKeys::load(&settings.keys.directory, &tenant_or_only(tenant, settings)?)?;
    let wait = settings.discovery.answer_wait.unwrap_or(DEFAULT_WAIT);
    let models = block_on(async {
        let publisher = ChannelPool::new(&settings.broker)?;
        publisher.warm_up().await?;
        let discovery = discover(settings, keys, publisher.clone(), wait).await.map_err(unheard)?;
        let models = discovery.list().await;
        discovery.stop().await;
        publisher.close().await;
        Ok(models)
    })?;
    if models.is_empty() {
        eprintln!("no worker answered within {wait:?} that it serves a model for this tenant");
    }
    if json {
        return print_json(&models);
    }
    let rows = models.iter().flat_map(|model| model.versions.iter().map(|version| row(model, version)));
    print_table(["MODEL", "VERSION", "REPLICAS", "ALIASES", "INPUTS", "LABELS", "HEARD"], rows)
}

fn unheard(reason: String) -> Failure {
    Failure::new(Exit::Broker, format!("announcements cannot be heard: {reason}"))
        .with_help("deploy/rabbitmq/permissions.json has what a tenant's user needs")
}

fn row(model: &RemoteModel, version: &RemoteVersion) -> [String; 7] {
    let told = &version.told;
    let aliases =
        model.aliases.iter().filter(|alias| alias.version == told.version).map(|alias| {
            if alias.share > 0.0 { format!("{}@{}", alias.name, alias.share) } else { alias.name.clone() }
        });
    let heard = Duration::from_millis(model.last_heard_ms);
    [
        model.name.clone(),
        told.version.to_string(),
        version.replicas.to_string(),
        aliases.collect::<Vec<_>>().join(", "),
        told.inputs.iter().map(input).collect::<Vec<_>>().join("; "),
        labels(&told.labels, told.label_count),
        format!("{:.1} s ago", heard.as_secs_f64()),
    ]
}

/// An input in words: `text BYTES [rows]`.
fn input(spec: &TensorSpec) -> String {
    let axes = spec.row_axes().map(|axis| axis.map_or_else(|| "any".to_owned(), |length| length.to_string()));
    let axes: Vec<String> = std::iter::once("rows".to_owned()).chain(axes).collect();
    format!("{} {} [{}]", spec.name, spec.datatype, axes.join(", "))
}

fn labels(told: &[String], count: usize) -> String {
    let shown: Vec<&str> = told.iter().take(SHOWN_LABELS).map(String::as_str).collect();
    match count.saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more if shown.is_empty() => format!("{more} labels"),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_labels_are_shown_and_many_are_counted() {
        let names: Vec<String> = (0..7).map(|number| format!("l{number}")).collect();
        assert_eq!(labels(&names[..2], 2), "l0, l1");
        assert_eq!(labels(&names, 7), "l0, l1, l2, l3, l4 and 2 more");
        assert_eq!(labels(&[], 1_000), "1000 labels");
        assert_eq!(labels(&[], 0), "");
    }
}
