"""What a terminal shows, and what it sends: progress, messages, interrupts."""
