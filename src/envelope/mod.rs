//! The envelope of a job.
