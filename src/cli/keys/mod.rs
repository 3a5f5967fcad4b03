//! `inferq keys`: makes, lists, checks, changes and hands over the keys of tenants. Never prints key material.

mod change;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use self::change::{ExportArgs, RevokeArgs, RotateArgs};
use super::Context;
use super::failure::Failure;
use super::output::{print, print_json, print_table};
use crate::envelope::{self, Grant, KeyAccess, Keyring, ListedKey, UnixSeconds};

/// Make, list, check, change and hand over the keys of tenants
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a tenant: its folder, its grant and its two keys
    ///
    /// Writes <directory>/<tenant>/ with tenant.toml, request.jwk and response.jwk. Give the tenant the two JWK
    /// files over a channel you trust. An existing tenant is never overwritten.
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate(GenerateArgs),
    /// List the keys of the key ring, with what they are for
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Check the key ring: what a worker would refuse is told, and ends with exit code 3
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ListArgs),
    /// Change a tenant's keys, in two steps without a gap
    ///
    /// Without --activate a next pair is made, which workers accept once they have read it and nobody uses yet. With
    /// --activate it is put into use; the old keys stay accepted until they expire or are revoked.
    #[command(after_help = change::ROTATE_EXAMPLES)]
    Rotate(RotateArgs),
    /// Refuse a key from now on
    #[command(after_help = change::REVOKE_EXAMPLES)]
    Revoke(RevokeArgs),
    /// Copy what a tenant's producer needs into a folder
    ///
    /// The grant, the key to seal with (the next one, where there is one) and every key that may seal its replies.
    #[command(after_help = change::EXPORT_EXAMPLES)]
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// The tenant's name: letters, digits, `-`, `_`
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// A model that the tenant may use; may be repeated [default: every model]
    #[arg(long = "model", value_name = "MODEL", default_value = "*", hide_default_value = true)]
    models: Vec<String>,
    /// The key ring's folder [default: keys.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The key ring's folder [default: keys.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  inferq keys generate --tenant acme
  inferq keys generate --tenant acme --model topic --model langid --directory /etc/inferq/keys";

const LIST_EXAMPLES: &str = "\
Examples:
  inferq keys list
  inferq keys list --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  inferq keys check
  inferq keys check --directory /etc/inferq/keys --json";

pub(super) fn run(args: KeysArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        KeysCommand::Generate(args) => generate(args, context),
        KeysCommand::List(args) => list(args, context),
        KeysCommand::Check(args) => check(args, context),
        KeysCommand::Rotate(args) => change::rotate(args, context),
        KeysCommand::Revoke(args) => change::revoke(args, context),
        KeysCommand::Export(args) => change::export(args, context),
    }
}

fn generate(args: GenerateArgs, context: &Context) -> Result<(), Failure> {
    let directory = directory(args.directory, context);
    let grant = Grant::new(&args.tenant, args.models);
    let [request, response] = envelope::generate(&directory, &args.tenant, &grant)?;
    let folder = directory.join(&args.tenant);
    if args.json {
        return print_json(&json!({
            "tenant": args.tenant,
            "folder": folder,
            "models": grant.models,
            "reply_prefix": grant.reply_prefix,
            "request_key": request,
            "response_key": response,
        }));
    }
    print(&format!(
        "tenant {} may use {}; its reply queues begin with {}\nrequest key   {request}\nresponse key  {response}\n\
         written to {}\n",
        args.tenant,
        named(&grant.models),
        grant.reply_prefix,
        folder.display()
    ))
}

/// The models of a grant in words.
fn named(models: &[String]) -> String {
    if models.iter().any(|model| model == "*") { "every model".to_owned() } else { models.join(", ") }
}

/// The key ring that is meant: the one named, or the settings' own.
fn directory(named: Option<PathBuf>, context: &Context) -> PathBuf {
    named.unwrap_or_else(|| context.settings.keys.directory.clone())
}

/// The ring, read as a worker would read it.
fn ring(named: Option<PathBuf>, context: &Context) -> Result<Keyring, Failure> {
    let access = if context.settings.keys.allow_group_read { KeyAccess::OwnerAndGroup } else { KeyAccess::Owner };
    Ok(Keyring::load_with(&directory(named, context), access)?)
}

fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let keys = ring(args.directory, context)?.list();
    if args.json {
        return print_json(&keys);
    }
    let row = |key: ListedKey| {
        let state = state(&key);
        [key.tenant, key.direction, key.key_id, state, key.file.display().to_string()]
    };
    print_table(["TENANT", "DIRECTION", "KEY ID", "STATE", "FILE"], keys.into_iter().map(row))
}

fn state(key: &ListedKey) -> String {
    match key.expires {
        _ if key.revoked => "revoked".to_owned(),
        Some(end) if end <= UnixSeconds::now() => "expired".to_owned(),
        Some(end) => format!("expires in {} s", end.0.saturating_sub(UnixSeconds::now().0)),
        None => "active".to_owned(),
    }
}

fn check(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let json = args.json;
    let ring = ring(args.directory, context)?;
    let (tenants, keys) = (ring.tenants().count(), ring.list());
    let refused = keys.iter().filter(|key| matches!(state(key).as_str(), "revoked" | "expired")).count();
    if json {
        return print_json(&json!({ "tenants": tenants, "keys": keys.len(), "refused": refused }));
    }
    print(&format!(
        "the key ring is in order: tenants {tenants}, keys {}, of them revoked or expired {refused}\n",
        keys.len()
    ))
}
