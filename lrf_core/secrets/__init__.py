"""Credentials that lrf reads, and their removal from everything it prints."""
