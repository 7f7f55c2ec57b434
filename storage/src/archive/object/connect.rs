//! Makes the client of a store out of what the options say, and of nothing else: the environment is
//! not asked. Refuses options that contradict each other, and plain HTTP unless it is allowed.

use std::time::Duration;

use object_store::BackoffConfig;
use object_store::ClientOptions;
use object_store::ObjectStore;
use object_store::RetryConfig;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use crate::archive::ArchiveError;
use crate::archive::ArchiveOptions;
use crate::archive::Place;
use crate::archive::object::PART_BYTES;
use crate::archive::object::time_for;

/// How often a request that failed without effect is sent again.
const RETRIES_MAX: usize = 3;
/// The pause before the first of them; the later ones are longer, with jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// Which part of the time for an answer one attempt to connect may take.
const CONNECTS_PER_TIMEOUT: u32 = 5;

/// The client of the object store at `place`; it asks nothing yet.
pub(super) fn connect(
    place: &Place,
    options: &ArchiveOptions,
) -> Result<Box<dyn ObjectStore>, ArchiveError> {
    let is_plain = options.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    if is_plain && !options.allow_http {
        return wrong("its endpoint is plain HTTP, which must be allowed explicitly".to_owned());
    }
    match place {
        Place::Local(dir) => wrong(format!("{} is a directory", dir.display())),
        Place::S3 { bucket, prefix } => {
            let store = s3(bucket, options)?.build().map_err(misconfigured)?;
            below(store, prefix)
        }
        Place::Google { bucket, prefix } => {
            let store = google(bucket, options)?.build().map_err(misconfigured)?;
            below(store, prefix)
        }
    }
}

fn s3(bucket: &str, options: &ArchiveOptions) -> Result<AmazonS3Builder, ArchiveError> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_retry(retries(options))
        .with_client_options(client_options(options))
        // Deleting one by one is what every store that speaks S3 can.
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    match (&options.access_key_id, &options.secret_access_key) {
        (Some(id), Some(secret)) => {
            Ok(builder.with_access_key_id(id.as_str()).with_secret_access_key(secret.as_str()))
        }
        (None, None) => Ok(builder),
        _ => wrong("an access key id and its secret need each other".to_owned()),
    }
}

fn google(
    bucket: &str,
    options: &ArchiveOptions,
) -> Result<GoogleCloudStorageBuilder, ArchiveError> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(retries(options))
        .with_client_options(client_options(options));
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    if let Some(file) = &options.service_account_file {
        let Some(path) = file.to_str() else {
            return wrong(format!("the path {} is not UTF-8", file.display()));
        };
        builder = builder.with_service_account_path(path);
    }
    Ok(builder)
}

fn below(store: impl ObjectStore, prefix: &str) -> Result<Box<dyn ObjectStore>, ArchiveError> {
    if prefix.is_empty() {
        return Ok(Box::new(store));
    }
    let prefix = Path::parse(prefix).map_err(|error| misconfigured(error.into()))?;
    Ok(Box::new(PrefixStore::new(store, prefix)))
}

fn client_options(options: &ArchiveOptions) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_connect_timeout(options.timeout / CONNECTS_PER_TIMEOUT)
        .with_timeout(time_for(options.timeout, PART_BYTES))
}

fn retries(options: &ArchiveOptions) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_LONGEST, base: 2.0 };
    // The last attempt still needs time to fail.
    let retry_timeout = options.timeout - options.timeout / CONNECTS_PER_TIMEOUT;
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout }
}

fn misconfigured(error: object_store::Error) -> ArchiveError {
    ArchiveError::Misconfigured { reason: error.to_string() }
}

fn wrong<T>(reason: String) -> Result<T, ArchiveError> {
    Err(ArchiveError::Misconfigured { reason })
}
