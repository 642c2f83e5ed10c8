//! `millpond token`: the file of tokens. All of it works on the file; a running server notices by itself.

use super::{
    Failure, Global,
    options::{moment, span},
    print::{self, Style},
};
use clap::{Args, Subcommand};
use kit::{Millis, Timestamp};
use serde_json::{Value, json};
use server::access::{QueuePattern, Role, SecretToken, Token as Kept, TokenFile, TokenFileError};
use std::path::PathBuf;

/// Tokens with roles: make one, list, rotate, revoke
///
/// The file holds one token a line, of each only its SHA-256: a token is shown once, when it is made. A server that was started with
/// --tokens-file reads the file again when it changes. Roles: admin, operator, producer, worker, read-only.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond token add ops --role admin --tokens-file tokens
  millpond token add web --role producer --queue 'mail.*' --expires 90d --tokens-file tokens
  millpond token list --tokens-file tokens
  millpond token rotate web --overlap 1d --tokens-file tokens
  millpond token revoke web --tokens-file tokens")]
pub(crate) struct Token {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct File {
    /// The file of tokens; made if it is not there
    #[arg(long = "tokens-file", value_name = "FILE", env = "MILLPOND_TOKENS_FILE")]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct Lifetime {
    /// It counts for this span only, such as 90d
    #[arg(long, value_name = "SPAN", value_parser = span)]
    expires: Option<Millis>,
    /// It counts until this time: RFC 3339 or Unix milliseconds
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "expires")]
    until: Option<Timestamp>,
}

impl Lifetime {
    fn end(&self) -> Option<Timestamp> {
        self.until.or_else(|| self.expires.map(|span| print::now() + span))
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token and show it, this once
    Add {
        /// Whose it is: 1 to 64 letters, digits and . _ -; the history says it
        name: String,
        /// What it is for; may be repeated
        #[arg(long, value_name = "ROLE", required = true, value_delimiter = ',', value_parser = role)]
        role: Vec<Role>,
        /// Only for this queue, or all that begin so (mail.*); may be repeated
        #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = pattern)]
        queue: Vec<QueuePattern>,
        #[command(flatten)]
        lifetime: Lifetime,
        #[command(flatten)]
        file: File,
    },
    /// Who has a token, for what and until when
    List {
        #[command(flatten)]
        file: File,
    },
    /// Take the tokens of a name away
    Revoke {
        /// Whose
        name: String,
        /// Only the one whose id begins so; `list` shows ids
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        #[command(flatten)]
        file: File,
    },
    /// Make a new token like the newest of a name and show it; the older ones count a while longer
    Rotate {
        /// Whose
        name: String,
        /// How long the older ones still count
        #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1d")]
        overlap: Millis,
        #[command(flatten)]
        lifetime: Lifetime,
        #[command(flatten)]
        file: File,
    },
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: server::access::BadToken| error.to_string())
}

fn pattern(text: &str) -> Result<QueuePattern, String> {
    text.parse().map_err(|error: server::access::BadToken| error.to_string())
}

fn unusable(error: &TokenFileError) -> Failure {
    Failure::Usage(error.to_string())
}

impl Token {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.verb {
            Verb::Add { name, role, queue, lifetime, file } => {
                let mut tokens = if file.path.exists() { read(&file)? } else { TokenFile::default() };
                if tokens.tokens().any(|token| token.name == name) {
                    let text =
                        format!("{name} has a token; `millpond token rotate {name}` makes the next one");
                    return Err(Failure::Usage(text));
                }
                let secret = generate()?;
                let kept = Kept {
                    name: name.as_str().into(),
                    roles: role,
                    queues: queue,
                    expires: lifetime.end(),
                    fingerprint: secret.fingerprint(),
                    password: Some(secret.password()),
                };
                // Through its line, which is what the server will read.
                let kept: Kept = kept
                    .to_string()
                    .parse()
                    .map_err(|error: server::access::BadToken| Failure::Usage(error.to_string()))?;
                tokens.add(kept.clone());
                tokens.write(&file.path).map_err(|error| unusable(&error))?;
                show_secret(&kept, &secret, global);
                Ok(())
            }
            Verb::List { file } => {
                list(&read(&file)?, global);
                Ok(())
            }
            Verb::Revoke { name, id, file } => {
                let mut tokens = read(&file)?;
                let gone = tokens.revoke(&name, id.as_deref());
                if gone == 0 {
                    return Err(nobody(&name));
                }
                tokens.write(&file.path).map_err(|error| unusable(&error))?;
                let text = format!("{gone} of {name} revoked");
                print::line(&if global.json {
                    json!({"name": name, "revoked": gone}).to_string()
                } else {
                    text
                });
                Ok(())
            }
            Verb::Rotate { name, overlap, lifetime, file } => {
                let mut tokens = read(&file)?;
                let secret = generate()?;
                let until = print::now() + overlap;
                let kept = tokens.rotate(&name, &secret, lifetime.end(), until).cloned();
                let kept = kept.ok_or_else(|| nobody(&name))?;
                tokens.write(&file.path).map_err(|error| unusable(&error))?;
                show_secret(&kept, &secret, global);
                if !global.json {
                    print::note(&format!("the older ones count until {until}"));
                }
                Ok(())
            }
        }
    }
}

fn nobody(name: &str) -> Failure {
    Failure::Usage(format!("there is no such token of {name}; `millpond token list` shows all"))
}

fn read(file: &File) -> Result<TokenFile, Failure> {
    TokenFile::read(&file.path).map_err(|error| unusable(&error))
}

fn generate() -> Result<SecretToken, Failure> {
    SecretToken::generate()
        .map_err(|error| Failure::Usage(format!("the system gives no random numbers: {error}")))
}

fn value(token: &Kept) -> Value {
    json!({
        "name": token.name.as_str(),
        "id": token.fingerprint.id(),
        "roles": token.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
        "queues": token.queues.iter().map(QueuePattern::to_string).collect::<Vec<_>>(),
        "expires": token.expires.map(|expires| expires.to_string()),
    })
}

fn show_secret(kept: &Kept, secret: &SecretToken, global: &Global) {
    if global.json {
        let mut value = value(kept);
        value["token"] = json!(secret.reveal());
        return print::line(&value.to_string());
    }
    print::line(secret.reveal());
    let (roles, queues, end) = (kept.roles_text(), kept.queues_text(), kept.expires_text());
    let text = format!("token {} of {}: {roles} in {queues}, ends {end}", kept.fingerprint.id(), kept.name);
    print::note(&format!("{text}. It is shown this once: keep it where only its holder can read it"));
}

fn list(tokens: &TokenFile, global: &Global) {
    if global.json {
        let all: Vec<_> = tokens.tokens().map(value).collect();
        return print::line(&json!({"tokens": all}).to_string());
    }
    let style = Style::stdout(global.color);
    let now = print::now();
    for token in tokens.tokens() {
        let end = if token.is_over(now) { style.warn("over") } else { token.expires_text() };
        let (roles, queues) = (token.roles_text(), token.queues_text());
        let name = style.bold(&token.name);
        print::line(&format!("{name}  {}  {roles}  {queues}  {end}", style.dim(&token.fingerprint.id())));
    }
}
