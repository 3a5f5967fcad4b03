//! `inferq keys`: makes and lists the keys of tenants. Never prints key material.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::failure::Failure;
use super::output::{print, print_json, print_table};
use crate::envelope::{self, Grant, Keyring, ListedKey};

/// Make and list the keys of tenants
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
    /// Print JSON: an array of keys
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

pub(super) fn run(args: KeysArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        KeysCommand::Generate(args) => generate(args, context),
        KeysCommand::List(args) => list(args, context),
    }
}

fn generate(args: GenerateArgs, context: &Context) -> Result<(), Failure> {
    let directory = args.directory.unwrap_or_else(|| context.settings.keys.directory.clone());
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

fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let directory = args.directory.unwrap_or_else(|| context.settings.keys.directory.clone());
    let keys = Keyring::load(&directory)?.list();
    if args.json {
        return print_json(&keys);
    }
    let row = |key: ListedKey| {
        let state = if key.revoked { "revoked" } else { "active" };
        [key.tenant, key.direction, key.key_id, state.to_owned(), key.file.display().to_string()]
    };
    print_table(["TENANT", "DIRECTION", "KEY ID", "STATE", "FILE"], keys.into_iter().map(row))
}
