//! `inferq keys rotate`, `revoke` and `export`: what changes a tenant's keys, or hands them to its producer.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::directory;
use crate::cli::Context;
use crate::cli::failure::Failure;
use crate::cli::output::{print, print_json};
use crate::envelope::{self, UnixSeconds};

#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// The tenant
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// Put the next pair into use
    #[arg(long)]
    activate: bool,
    /// Refuse the old request key after so many seconds [default: when it is revoked]
    #[arg(long, value_name = "SECONDS", requires = "activate")]
    old_expires_s: Option<u64>,
    /// The key ring's folder [default: keys.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The tenant
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// The key's id, as `inferq keys list` shows it
    #[arg(long, value_name = "ID")]
    key: String,
    /// The key ring's folder [default: keys.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The tenant
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// The folder that is handed over; the tenant's own is made in it
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Leave out the keys of replies: for a producer that sends and never reads an answer
    #[arg(long)]
    request_only: bool,
    /// The key ring's folder [default: keys.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const ROTATE_EXAMPLES: &str = "\
Examples:
  inferq keys rotate --tenant acme
  inferq keys export --tenant acme --to handover
  inferq keys rotate --tenant acme --activate --old-expires-s 86400";

pub(super) const REVOKE_EXAMPLES: &str = "\
Examples:
  inferq keys revoke --tenant acme --key acme.req.nbhD_RHHI1kEnUs6";

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  inferq keys export --tenant acme --to handover
  inferq keys export --tenant sensor --to handover --request-only";

pub(super) fn rotate(args: RotateArgs, context: &Context) -> Result<(), Failure> {
    let directory = directory(args.directory, context);
    let tenant = &args.tenant;
    if !args.activate {
        let [request, response] = envelope::add_next(&directory, tenant)?;
        if args.json {
            return print_json(
                &json!({ "tenant": tenant, "next_request_key": request, "next_response_key": response }),
            );
        }
        return print(&format!(
            "next request key   {request}\nnext response key  {response}\n\
             workers accept them once they have read the key ring; hand them over with `inferq keys export`, then run \
             `inferq keys rotate --tenant {tenant} --activate`\n"
        ));
    }
    let end = args.old_expires_s.map(|seconds| UnixSeconds(UnixSeconds::now().0.saturating_add(seconds)));
    let [request, response] = envelope::activate(&directory, tenant, end)?;
    if args.json {
        return print_json(&json!({
            "tenant": tenant,
            "old_request_key": request,
            "old_response_key": response,
            "old_request_key_expires": end,
        }));
    }
    print(&format!(
        "the next pair is in use; still accepted are\nold request key   {request}\nold response key  {response}\n\
         refuse one with `inferq keys revoke --tenant {tenant} --key ID`\n"
    ))
}

pub(super) fn revoke(args: RevokeArgs, context: &Context) -> Result<(), Failure> {
    envelope::revoke(&directory(args.directory, context), &args.tenant, &args.key)?;
    print(&format!("{} is refused once the workers have read the key ring\n", args.key))
}

pub(super) fn export(args: ExportArgs, context: &Context) -> Result<(), Failure> {
    let from = directory(args.directory, context);
    let exported = envelope::export(&from, &args.tenant, &args.to, !args.request_only)?;
    if args.json {
        return print_json(&exported);
    }
    let replies = match exported.response_keys.as_slice() {
        [] => "none".to_owned(),
        keys => keys.join(", "),
    };
    print(&format!(
        "written to {}; hand it over on a way that you trust, and delete it here\nrequest key   {}\nresponse keys {replies}\n",
        exported.folder.display(),
        exported.request_key
    ))
}
