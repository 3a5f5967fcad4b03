//! Goes through the queues of letters, and does with those that are meant what the command says.

use indicatif::{ProgressBar, ProgressStyle};

use super::filter::{Facts, Filter};
use crate::broker::Address;
use crate::broker::amqp::letters::{Letter, LetterBox, LetterError};
use crate::broker::topology::Names;
use crate::cli::failure::{Exit, Failure};
use crate::cli::models::served_names;
use crate::cli::output::{print, print_json, print_table};
use crate::cli::{Context, block_on};
use crate::envelope::UnixSeconds;
use crate::protocol::properties::{
    HEADER_ATTEMPT, HEADER_ERROR, HEADER_FAILED_AT, HEADER_FAILED_ATTEMPT, HEADER_REPLY_QUEUE, HEADER_WORKER, Message,
};

/// What is done with a letter.
enum Deed {
    /// It goes back.
    Look,
    /// It is sent again.
    Replay,
    /// It is deleted.
    Purge,
}

/// A queue of letters, and where its letters are sent again; a reply tells its queue itself.
struct Source {
    queue: String,
    replay_to: Option<Address>,
}

pub(super) fn list(filter: &Filter, json: bool, context: &Context) -> Result<(), Failure> {
    let found = go_through(filter, context, &Deed::Look, |facts| filter.takes(facts))?.done;
    if json {
        return print_json(&found);
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    print_table(
        ["MESSAGE ID", "QUEUE", "TENANT", "CODE", "AGE", "BYTES"],
        found.iter().map(|facts| {
            let age = facts.age_s.map_or("-".to_owned(), |age| format!("{age} s"));
            let (id, tenant, code) = (or_dash(&facts.message_id), or_dash(&facts.tenant), or_dash(&facts.code));
            [id, facts.queue.clone(), tenant, code, age, facts.body_bytes.to_string()]
        }),
    )
}

pub(super) fn show(id: &str, filter: &Filter, context: &Context) -> Result<(), Failure> {
    let found = go_through(filter, context, &Deed::Look, |facts| filter.is(facts, id))?.done;
    match found.first() {
        Some(facts) => print_json(facts),
        None => Err(Failure::new(Exit::Failed, format!("there is no letter with the message id `{id}`"))
            .with_help("`inferq dead-letter list` shows the letters; --undeliverable looks at replies")),
    }
}

pub(super) fn replay(filter: &Filter, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let deed = if dry_run { Deed::Look } else { Deed::Replay };
    let Round { done, refused } = go_through(filter, context, &deed, |facts| filter.takes(facts))?;
    print(&format!("{} {}\n", done.len(), if dry_run { "would be sent again" } else { "sent again" }))?;
    match refused.first() {
        None => Ok(()),
        Some(first) => {
            let message = format!("{} letters have no place to go and stay where they are: {first}", refused.len());
            Err(Failure::new(Exit::Failed, message)
                .with_help("see that the queue is there and has room, or purge them"))
        }
    }
}

pub(super) fn purge(filter: &Filter, dry_run: bool, context: &Context) -> Result<(), Failure> {
    let deed = if dry_run { Deed::Look } else { Deed::Purge };
    let found = go_through(filter, context, &deed, |facts| filter.takes(facts))?.done;
    print(&format!("{} {}\n", found.len(), if dry_run { "would be deleted" } else { "deleted" }))
}

/// What came of going through the queues.
#[derive(Default)]
struct Round {
    /// Letters with which it was done.
    done: Vec<Facts>,
    /// Why it was not done with others, which stay.
    refused: Vec<LetterError>,
}

/// Takes every letter of every queue once, and does the deed on those that are meant. A letter that has no place to go does
/// not stand in the way of those behind it.
fn go_through(
    filter: &Filter,
    context: &Context,
    deed: &Deed,
    is_meant: impl Fn(&Facts) -> bool,
) -> Result<Round, Failure> {
    let sources = sources(filter, context)?;
    let names = Names::new(&context.settings.broker.name_prefix);
    block_on(async {
        let mut round = Round::default();
        for source in &sources {
            let mut letters = LetterBox::open(&context.settings.broker, &source.queue).await?;
            let progress = progress_bar(letters.left(), context.quiet);
            while let Some(letter) = letters.next().await? {
                let facts = Facts::of(&letter.message, &source.queue, UnixSeconds::now());
                if is_meant(&facts) {
                    match do_deed(deed, &letters, &letter, source, &names).await? {
                        None => round.done.push(facts),
                        Some(error) => round.refused.push(error),
                    }
                }
                progress.inc(1);
            }
            progress.finish_and_clear();
            letters.close().await;
        }
        Ok(round)
    })
}

fn sources(filter: &Filter, context: &Context) -> Result<Vec<Source>, Failure> {
    let names = Names::new(&context.settings.broker.name_prefix);
    if filter.undeliverable {
        return Ok(vec![Source { queue: names.undeliverable_queue(), replay_to: None }]);
    }
    let models = if filter.models.is_empty() { served_names(&context.settings.models)? } else { filter.models.clone() };
    let of_model = |model: &String| Source {
        queue: names.dead_queue(model),
        replay_to: Some(Address::new(&names.jobs_exchange(), model)),
    };
    Ok(models.iter().map(of_model).collect())
}

/// The error is of a letter that has no place to go.
async fn do_deed(
    deed: &Deed,
    letters: &LetterBox,
    letter: &Letter,
    source: &Source,
    names: &Names,
) -> Result<Option<LetterError>, Failure> {
    match deed {
        Deed::Look => Ok(None),
        Deed::Purge => Ok(letters.discard(letter).await.map(|()| None)?),
        Deed::Replay => {
            let of_reply = || {
                let queue = letter.message.properties.text_header(HEADER_REPLY_QUEUE)?;
                Some(Address::new(&names.replies_exchange(), queue))
            };
            let address = source.replay_to.clone().or_else(of_reply).ok_or_else(|| {
                Failure::new(Exit::Failed, format!("a letter in `{}` names no reply queue", source.queue))
            })?;
            match letters.replay(letter, &address, &without_reason(&letter.message)).await {
                Ok(()) => Ok(None),
                Err(error) if error.concerns_one_letter() => Ok(Some(error)),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// The message as it was before it became a letter, at its first attempt.
fn without_reason(letter: &Message) -> Message {
    let mut message = letter.clone();
    let ours =
        [HEADER_ERROR, HEADER_FAILED_ATTEMPT, HEADER_FAILED_AT, HEADER_WORKER, HEADER_REPLY_QUEUE, HEADER_ATTEMPT];
    // What the broker wrote when it dead-lettered by itself would otherwise grow with every round.
    message.properties.headers.retain(|name, _| !ours.contains(&name.as_str()) && !name.starts_with("x-death"));
    message
}

fn progress_bar(letters: u32, quiet: bool) -> ProgressBar {
    if quiet || letters < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} letters  {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(letters)).with_style(style)
}

impl From<LetterError> for Failure {
    fn from(error: LetterError) -> Self {
        Self::new(Exit::Broker, error.to_string())
            .with_help("letters that were not settled are still in their queue; run the command again")
    }
}
