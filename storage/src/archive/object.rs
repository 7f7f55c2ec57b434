//! An archive in an object store: S3, what speaks its protocol, and Google Cloud Storage.
//!
//! Every call has an end: the store must answer in the configured time, and what carries content gets
//! more by its length. Large objects go and come in parts, so memory stays flat. Refuses to wait for
//! ever, and to leave a broken upload behind where it can still be ended.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::GetOptions;
use object_store::GetRange;
use object_store::MultipartUpload;
use object_store::ObjectMeta;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::archive::Archive;
use crate::archive::ArchiveError;
use crate::archive::ArchiveOptions;
use crate::archive::ObjectInfo;
use crate::archive::Place;
use crate::archive::SharedArchive;
use crate::archive::local::LocalArchive;
use crate::archive::name;

mod connect;
mod engine;
mod failure;
mod reader;

use engine::Engine;
use failure::failure;
use reader::ObjectReader;

/// Objects longer than this are uploaded in parts, of this length or more.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Most parts of one upload; S3 and Google Cloud Storage take 10000.
const PARTS_MAX: u64 = 9_000;
/// How much of an object is read at a time.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// The slowest transfer that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 128 * 1024;

/// An archive in an object store.
pub struct ObjectArchive {
    client: Arc<Client>,
}

/// The store and what drives its requests.
struct Client {
    store: Box<dyn ObjectStore>,
    engine: Engine,
    timeout: Duration,
    location: String,
}

impl ObjectArchive {
    /// Opens the archive that `options` describe, be it an object store or a directory. An object
    /// store is not asked yet: one that cannot be reached now can be opened.
    ///
    /// # Errors
    /// If the options do not fit together, or the directory cannot be used.
    pub fn open(options: &ArchiveOptions) -> Result<SharedArchive, ArchiveError> {
        let place = Place::parse(&options.url)?;
        if let Place::Local(dir) = &place {
            return Ok(Arc::new(LocalArchive::open(dir)?));
        }
        let client = Client {
            store: connect::connect(&place, options)?,
            engine: Engine::default(),
            timeout: options.timeout,
            location: place.to_string(),
        };
        Ok(Arc::new(Self { client: Arc::new(client) }))
    }

    /// Runs one request off this thread and waits for its end.
    fn run<T, W>(&self, work: impl FnOnce(Arc<Client>) -> W) -> Result<T, ArchiveError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, ArchiveError>> + Send + 'static,
    {
        self.client.engine.run(work(Arc::clone(&self.client)))?
    }

    fn put_parts(&self, name: &str, file: &mut File, len: u64) -> Result<(), ArchiveError> {
        let path = object_path(name)?;
        let object = name.to_owned();
        let mut upload = self.run(|client| async move {
            client.limited(0, &object, client.store.put_multipart(&path)).await
        })?;
        let sent = self.send_parts(&mut upload, name, file, len);
        let object = name.to_owned();
        self.run(|client| async move {
            let ended = match sent {
                Ok(()) => client.limited(0, &object, upload.complete()).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if ended.is_err() {
                // What stays is invisible, and ended by the bucket's own lifecycle rule.
                let aborted = client.limited(0, &object, upload.abort()).await;
                if let Err(error) = aborted {
                    tracing::warn!(object, %error, "a broken upload could not be ended");
                }
            }
            ended
        })
    }

    fn send_parts(
        &self,
        upload: &mut Box<dyn MultipartUpload>,
        name: &str,
        file: &mut File,
        len: u64,
    ) -> Result<(), ArchiveError> {
        let part_bytes = PART_BYTES.max(len.div_ceil(PARTS_MAX));
        let mut sent = 0;
        while sent < len {
            let wanted = part_bytes.min(len - sent);
            let part = read_part(file, wanted)?;
            let uploading = upload.put_part(part.into());
            let object = name.to_owned();
            self.run(|client| async move { client.limited(wanted, &object, uploading).await })?;
            sent += wanted;
        }
        Ok(())
    }
}

impl Client {
    /// Waits for an answer as long as one that carries `bytes` may take.
    async fn limited<T>(
        &self,
        bytes: u64,
        name: &str,
        answer: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, ArchiveError> {
        let limit = time_for(self.timeout, bytes);
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error| failure(&error, name)),
            Err(_) => {
                let reason = format!("no answer within {} s", limit.as_secs_f32());
                Err(ArchiveError::Unreachable { reason })
            }
        }
    }

    /// Reads an object or a range of it; a range behind its end is empty.
    async fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, ArchiveError> {
        let path = object_path(name)?;
        let has_range = range.is_some();
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let asked = async {
            match self.store.get_opts(&path, options).await {
                Err(error) if has_range && failure::is_past_the_end(&error) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let Some(answer) = self.limited(0, name, asked).await? else { return Ok(Vec::new()) };
        let wanted = answer.range.end - answer.range.start;
        // What a store says of a length reserves no more than a chunk.
        let reserved = usize::try_from(wanted.min(CHUNK_BYTES)).unwrap_or(0);
        let mut content = Vec::with_capacity(reserved);
        let mut pieces = answer.into_stream();
        while let Some(piece) = self.limited(0, name, pieces.try_next()).await? {
            content.extend_from_slice(&piece);
        }
        if content.len() as u64 == wanted {
            return Ok(content);
        }
        let reason = format!("{name} broke off after {} of {wanted} bytes", content.len());
        Err(ArchiveError::Unreachable { reason })
    }

    async fn head(&self, name: &str) -> Result<Option<ObjectMeta>, ArchiveError> {
        let path = object_path(name)?;
        match self.limited(0, name, self.store.head(&path)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(ArchiveError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArchiveError> {
        let path = if prefix.is_empty() { None } else { Some(object_path(prefix)?) };
        let mut found = Vec::new();
        let mut objects = self.store.list(path.as_ref());
        while let Some(meta) = self.limited(0, prefix, objects.try_next()).await? {
            let modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
            let name = String::from(meta.location);
            found.push(ObjectInfo { name, bytes: meta.size, modified_ms });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

impl Archive for ObjectArchive {
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        name::check(name)?;
        let object = name.to_owned();
        self.run(|client| async move {
            let path = object_path(&object)?;
            let len = bytes.len() as u64;
            client.limited(len, &object, client.store.put(&path, bytes.into())).await.map(|_| ())
        })
    }

    fn put_file(&self, name: &str, path: &FilePath) -> Result<(), ArchiveError> {
        name::check(name)?;
        let unreadable = |error| super::unreadable(path, &error);
        let mut file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        if len > PART_BYTES {
            return self.put_parts(name, &mut file, len);
        }
        self.put(name, read_part(&mut file, len)?)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        name::check(name)?;
        let name = name.to_owned();
        self.run(|client| async move { client.read(&name, None).await })
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ArchiveError> {
        if range.is_empty() {
            let there = self.size(name)?;
            let missing = || ArchiveError::Missing { name: name.to_owned() };
            return there.map(|_| Vec::new()).ok_or_else(missing);
        }
        name::check(name)?;
        let name = name.to_owned();
        self.run(|client| async move { client.read(&name, Some(range)).await })
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, ArchiveError> {
        let len = self.size(name)?;
        let len = len.ok_or_else(|| ArchiveError::Missing { name: name.to_owned() })?;
        Ok(Box::new(ObjectReader::new(Arc::clone(&self.client), name, len)))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, ArchiveError> {
        name::check(name)?;
        let name = name.to_owned();
        self.run(|client| async move { Ok(client.head(&name).await?.map(|meta| meta.size)) })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ArchiveError> {
        name::check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.run(|client| async move { client.list(&prefix).await })
    }

    fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        name::check(name)?;
        let name = name.to_owned();
        self.run(|client| async move {
            let path = object_path(&name)?;
            match client.limited(0, &name, client.store.delete(&path)).await {
                Err(ArchiveError::Missing { .. }) => Ok(()),
                answer => answer,
            }
        })
    }

    fn location(&self) -> String {
        self.client.location.clone()
    }
}

fn object_path(name: &str) -> Result<Path, ArchiveError> {
    Path::parse(name).map_err(|error| ArchiveError::Misconfigured { reason: error.to_string() })
}

/// Reads exactly so much of a local file.
fn read_part(file: &mut File, bytes: u64) -> Result<Vec<u8>, ArchiveError> {
    let mut part = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    let reason = match file.by_ref().take(bytes).read_to_end(&mut part) {
        Ok(_) if part.len() as u64 == bytes => return Ok(part),
        Ok(_) => "it became shorter while it was read".to_owned(),
        Err(error) => error.to_string(),
    };
    let reason = format!("the file to be archived cannot be read: {reason}");
    Err(ArchiveError::Misconfigured { reason })
}

/// How long an exchange may take that carries `bytes`.
fn time_for(timeout: Duration, bytes: u64) -> Duration {
    timeout + Duration::from_millis(bytes * 1000 / BYTES_PER_SECOND_MIN)
}
