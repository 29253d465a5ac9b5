"""The commands of `lrf`: each translates flags into a spec, calls a stage, shows the result."""
