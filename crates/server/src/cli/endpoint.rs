//! The options of `millpond work --to`.

use super::Failure;
use clap::Args;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::ClientConfig;
use std::{fs, path::PathBuf};
use workers::endpoint::{self, Endpoint, Secret};

/// Where jobs are posted to, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "HTTP endpoint")]
pub(crate) struct EndpointOptions {
    /// Post every job to this URL, instead of starting a program
    #[arg(long, value_name = "URL", conflicts_with_all = ["pool", "env", "echo", "SandboxOptions"])]
    to: Option<String>,
    /// A file with the secret that signs what is posted, one a line (whsec_…), several while one replaces another
    #[arg(long, value_name = "FILE", requires = "to")]
    secret_file: Option<PathBuf>,
    /// Send a header with every post; NAME alone takes its value from this environment
    #[arg(long, value_name = "NAME[:VALUE]", requires = "to")]
    header: Vec<String>,
    /// Let the URL's name lead into this machine or a private network
    #[arg(long, requires = "to")]
    allow_inside: bool,
    /// Believe a server under TLS whose certificate leads to one of this file, instead of those that this system trusts
    #[arg(long, value_name = "FILE", requires = "to")]
    endpoint_ca: Option<PathBuf>,
}

impl EndpointOptions {
    /// The endpoint, if there is one.
    pub(crate) fn endpoint(&self) -> Result<Option<Endpoint>, Failure> {
        let Some(url) = &self.to else {
            // Beside a program clap does not miss what these need.
            let given = self.secret_file.is_some()
                || !self.header.is_empty()
                || self.allow_inside
                || self.endpoint_ca.is_some();
            let without = "--secret-file, --header, --allow-inside and --endpoint-ca go with --to URL";
            return if given { Err(Failure::Usage(without.to_owned())) } else { Ok(None) };
        };
        let usage = |error: &dyn std::error::Error| Failure::Usage(error.to_string());
        let trusted = millpond::trusted(self.endpoint_ca.as_deref()).map_err(|error| usage(&error))?;
        let tls = ClientConfig::builder_with_provider(server::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| usage(&error))?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let options = endpoint::EndpointOptions {
            secrets: self.secrets()?,
            headers: self.headers()?,
            allow_inside: self.allow_inside,
            tls,
        };
        Endpoint::new(url, options).map(Some).map_err(|error| usage(&error))
    }

    fn secrets(&self) -> Result<Vec<Secret>, Failure> {
        let Some(path) = &self.secret_file else { return Ok(Vec::new()) };
        let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Result<Vec<Secret>, _> = lines.map(Secret::parse).collect();
        let secrets = secrets.map_err(|error| wrong(error.to_string()))?;
        if secrets.is_empty() { Err(wrong("there is no secret in it".to_owned())) } else { Ok(secrets) }
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        for given in &self.header {
            let (name, value) = match given.split_once(':') {
                Some((name, value)) => (name, value.trim().to_owned()),
                None => {
                    let variable = given.to_uppercase().replace('-', "_");
                    let value = std::env::var(&variable).map_err(|_| {
                        Failure::Usage(format!("--header {given}: there is no {variable} in the environment"))
                    })?;
                    (given.as_str(), value)
                }
            };
            let wrong = || Failure::Usage(format!("--header {name}: not a header"));
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name.trim()).map_err(|_| wrong())?, value);
        }
        Ok(headers)
    }
}
