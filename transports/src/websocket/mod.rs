//! WebSocket (RFC 6455) as a Tower service.
