"""The pages: templates, static files, and a thin view for each."""
