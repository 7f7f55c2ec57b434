//! Reads an object from its start, a range at a time. Holds one range in memory, never the object.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::sync::Arc;

use crate::archive::ArchiveError;
use crate::archive::object::CHUNK_BYTES;
use crate::archive::object::Client;

/// An object being read.
pub(super) struct ObjectReader {
    client: Arc<Client>,
    name: String,
    len: u64,
    /// Where the next range begins.
    position: u64,
    chunk: Vec<u8>,
    /// How much of the chunk was handed out.
    taken: usize,
}

impl ObjectReader {
    pub(super) fn new(client: Arc<Client>, name: &str, len: u64) -> Self {
        Self { client, name: name.to_owned(), len, position: 0, chunk: Vec::new(), taken: 0 }
    }

    fn fetch(&mut self) -> io::Result<()> {
        let range = self.position..self.len.min(self.position + CHUNK_BYTES);
        let wanted = range.end - range.start;
        let (client, name) = (Arc::clone(&self.client), self.name.clone());
        let reading = async move { client.read(&name, Some(range)).await };
        let read = self.client.engine.run(reading).and_then(|read| read);
        let chunk = read.map_err(into_io)?;
        if chunk.len() as u64 != wanted {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.chunk = chunk;
        self.taken = 0;
        self.position += wanted;
        Ok(())
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() && self.position < self.len {
            self.fetch()?;
        }
        let mut rest = self.chunk.get(self.taken..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

fn into_io(error: ArchiveError) -> io::Error {
    let kind = match &error {
        ArchiveError::Missing { .. } => ErrorKind::NotFound,
        ArchiveError::Unreachable { .. } => ErrorKind::TimedOut,
        ArchiveError::Refused { .. } => ErrorKind::PermissionDenied,
        ArchiveError::Misconfigured { .. } => ErrorKind::InvalidInput,
        ArchiveError::Full { .. } => ErrorKind::StorageFull,
    };
    io::Error::new(kind, error)
}
