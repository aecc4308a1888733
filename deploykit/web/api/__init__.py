"""The API for reading, `/api/v1`: JSON of the classes in `projection.views`, OpenAPI, problem+json."""
