"""Settings of the original's programs, and of r10k and g10k, to one `deploykit.toml`.

files -> oldfiles.read (YAML, safely) -> kinds: which program's -> convert -> MigrationDraft -> render: commented TOML
                                                                          and what could not be carried over
"""
