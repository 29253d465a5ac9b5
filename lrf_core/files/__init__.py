"""Files on this machine: whole or not there, locked, temporary, within known sizes."""
