"""What a command does, for the command line and for whoever embeds deploykit."""
