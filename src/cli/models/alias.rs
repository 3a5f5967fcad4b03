//! `inferq models alias` and `inferq models rollback`: which version answers the jobs that name none.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{print, print_json, print_table};
use crate::model::{Alias, Aliases, STABLE, check_shares, find_versions};

#[derive(Debug, Args)]
pub(super) struct AliasArgs {
    /// The model
    #[arg(value_name = "NAME")]
    model: String,
    /// Aliases to set, such as stable=1 or canary=2@0.1; without any the aliases are printed
    #[arg(value_name = "ALIAS=VERSION[@SHARE]", value_parser = parse_alias)]
    aliases: Vec<(String, Alias)>,
    /// Take this alias away; may be repeated
    #[arg(long, value_name = "ALIAS")]
    remove: Vec<String>,
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON: `current`, the aliases by name, and `earlier`, what they were before
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The model
    #[arg(value_name = "NAME")]
    model: String,
    /// The model repository's folder [default: models.directory]
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Print JSON, as `inferq models alias` does
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  inferq models alias topic
  inferq models alias topic stable=1 canary=2@0.1
  inferq models alias topic stable=2 --remove canary";

pub(super) const ROLLBACK_EXAMPLES: &str = "\
Examples:
  inferq models rollback topic";

fn parse_alias(text: &str) -> Result<(String, Alias), String> {
    let fault = "expected ALIAS=VERSION or ALIAS=VERSION@SHARE, such as stable=1 or canary=2@0.1";
    let (name, value) = text.split_once('=').ok_or(fault)?;
    let (version, share) = value.split_once('@').unwrap_or((value, "0"));
    let version: u32 = version.parse().map_err(|_| fault)?;
    let share: f64 = share.parse().map_err(|_| fault)?;
    Ok((name.to_owned(), Alias { version, share }))
}

pub(super) fn run(args: &AliasArgs, context: &Context) -> Result<(), Failure> {
    let (folder, versions) = model(&args.model, args.directory.as_ref(), context)?;
    let aliases = Aliases::read(&folder)?;
    if args.aliases.is_empty() && args.remove.is_empty() {
        return show(&aliases, &versions, args.json);
    }
    let mut table = aliases.current.clone();
    for name in &args.remove {
        if table.remove(name).is_none() {
            let there: Vec<&str> = table.keys().map(String::as_str).collect();
            let message = format!("model `{}` has no alias `{name}`; it has {}", args.model, there.join(", "));
            return Err(Failure::new(Exit::Usage, message).with_help("`inferq models alias NAME` prints its aliases"));
        }
    }
    for (name, alias) in &args.aliases {
        if !versions.contains(&alias.version) {
            let message = format!("model `{}` has no version {}", args.model, alias.version);
            return Err(Failure::new(Exit::Usage, message).with_help("`inferq models list` shows what there is"));
        }
        table.insert(name.clone(), *alias);
    }
    let wrong = |fault| Failure::new(Exit::Usage, fault).with_help("such as stable=1 canary=2@0.1");
    check_shares(&table).map_err(wrong)?;
    let changed = if table == aliases.current { aliases } else { aliases.changed_to(table) };
    changed.write(&folder)?;
    show(&changed, &versions, args.json)
}

pub(super) fn rollback(args: &RollbackArgs, context: &Context) -> Result<(), Failure> {
    let (folder, versions) = model(&args.model, args.directory.as_ref(), context)?;
    let Some(earlier) = Aliases::read(&folder)?.rolled_back() else {
        let message =
            format!("the aliases of model `{}` have not been changed: there is nothing to go back to", args.model);
        return Err(Failure::new(Exit::Failed, message).with_help("`inferq models alias NAME` prints and sets them"));
    };
    let missing = earlier.current.iter().find(|(_, alias)| !versions.contains(&alias.version));
    if let Some((name, alias)) = missing {
        let message = format!("alias `{name}` was version {}, which the repository has no more", alias.version);
        return Err(Failure::new(Exit::Failed, message).with_help("put the version back, or set the aliases anew"));
    }
    earlier.write(&folder)?;
    show(&earlier, &versions, args.json)
}

/// The model's folder and versions.
fn model(name: &str, directory: Option<&PathBuf>, context: &Context) -> Result<(PathBuf, Vec<u32>), Failure> {
    let directory: &Path = directory.unwrap_or(&context.settings.models.directory);
    let all = find_versions(directory)?;
    let versions: Vec<u32> = all.iter().filter(|(own, ..)| own == name).map(|(_, version, _)| *version).collect();
    if versions.is_empty() {
        let failure = Failure::new(Exit::Invalid, format!("the repository has no model `{name}`"));
        return Err(failure.with_help("`inferq models list` shows what it has"));
    }
    Ok((directory.join(name), versions))
}

fn show(aliases: &Aliases, versions: &[u32], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(aliases);
    }
    let given: f64 = aliases.current.values().map(|alias| alias.share).sum();
    let rest = format!("{:.1}%", (1.0 - given) * 100.0);
    let row = |(name, alias): (&String, &Alias)| {
        let share = if name == STABLE { rest.clone() } else { format!("{:.1}%", alias.share * 100.0) };
        [name.clone(), alias.version.to_string(), share]
    };
    print_table(["ALIAS", "VERSION", "JOBS WITHOUT A VERSION"], aliases.current.iter().map(row))?;
    if aliases.current.contains_key(STABLE) {
        return Ok(());
    }
    let highest = versions.iter().max().copied().unwrap_or_default();
    print(&format!("{rest} of the jobs without a version go to the highest, {highest}\n"))
}
