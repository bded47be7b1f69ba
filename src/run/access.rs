//! The way to the cloud's API: the same for all that may ask it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::time::Instant;

use crate::config::{Cloud, Credentials as Source};
use crate::ucloud::{
    BuildError, CredentialSource, Credentials, Metadata, Observer, ReqwestTransport, Roles, UCloud,
    UCloudConfig,
};

/// Time for one try to get keys at start.
const KEYS_WITHIN: Duration = Duration::from_secs(10);
/// Between tries: nobody waits for anything but the Secret or the role that the operator adds.
const KEYS_PAUSE: Duration = Duration::from_secs(2);

/// A client that still lacks its region. Making it sends nothing.
pub(super) struct Access {
    transport: ReqwestTransport,
    credentials: CredentialSource<ReqwestTransport>,
}

impl Access {
    pub(super) fn new(cloud: &Cloud, metadata_endpoint: &Url) -> Result<Self, BuildError> {
        let transport = ReqwestTransport::for_endpoint(&cloud.api_endpoint)?;
        Ok(Self { transport, credentials: credentials(&cloud.credentials, metadata_endpoint)? })
    }

    pub(super) fn client(self, cloud: &Cloud, region: &str, observer: Arc<dyn Observer>) -> UCloud {
        let access = UCloudConfig {
            endpoint: cloud.api_endpoint.clone(),
            region: region.to_owned(),
            project_id: cloud.project_id.clone(),
            vpc_id: cloud.vpc_id.clone(),
            read_timeout: cloud.api_timeout,
        };
        UCloud::with(access, self.transport, self.credentials, observer, fastrand::Rng::new())
    }
}

fn credentials(
    source: &Source,
    metadata_endpoint: &Url,
) -> Result<CredentialSource<ReqwestTransport>, BuildError> {
    Ok(match source {
        Source::Keys { public, private } => {
            CredentialSource::keys(Credentials::keys(public.clone(), private.clone()))
        }
        Source::Directory(path) => CredentialSource::directory(path.clone()),
        Source::Sts { role, role_v2 } => {
            let transport = ReqwestTransport::for_endpoint(metadata_endpoint)?;
            let roles = Roles { v1: role.clone(), v2: role_v2.clone() };
            CredentialSource::sts(Metadata::new(transport, metadata_endpoint.clone()), roles)
        }
    })
}

/// Returns when there are keys; `missing` hears what is wrong with them before a volume needs them.
pub(super) async fn wait_for_keys(
    credentials: &CredentialSource<ReqwestTransport>,
    missing: impl Fn(&str) + Send + Sync,
) {
    let mut said = String::new();
    while let Err(error) = credentials.current(Instant::now() + KEYS_WITHIN).await {
        let why = error.to_string();
        if said != why {
            missing(&why);
            said = why;
        }
        tokio::time::sleep(KEYS_PAUSE).await;
    }
}
