//! Long polling as a Tower service.
