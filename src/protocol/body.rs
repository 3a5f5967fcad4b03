//! A body of the protocol before it is sealed: JSON, and raw tensors behind it where the binary extension is used.

use zeroize::Zeroizing;

/// Encoded plaintext of a request or a response.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedBody {
    /// JSON, then the binary tensors in the order of their appearance. Wiped when dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Length of the JSON part where binary tensors follow it.
    pub json_length: Option<usize>,
}

impl std::fmt::Debug for EncodedBody {
    /// Sizes only: bodies are content.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EncodedBody")
            .field("bytes", &self.bytes.len())
            .field("json_length", &self.json_length)
            .finish()
    }
}

impl EncodedBody {
    /// A body of JSON, followed by `binary` unless that is empty.
    pub(super) fn new(json: Vec<u8>, binary: &[u8]) -> Self {
        let mut bytes = Zeroizing::new(json);
        let json_length = (!binary.is_empty()).then_some(bytes.len());
        bytes.extend_from_slice(binary);
        Self { bytes, json_length }
    }
}

/// Parts a plaintext into its JSON and what follows it.
///
/// # Errors
/// The length, where the plaintext is shorter.
pub(super) fn split(plaintext: &[u8], json_length: Option<usize>) -> Result<(&[u8], &[u8]), usize> {
    match json_length {
        Some(length) => plaintext.split_at_checked(length).ok_or(length),
        None => Ok((plaintext, &[])),
    }
}
