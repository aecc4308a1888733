"""What each command does, for the command line, the web and programs that embed deploykit."""
