"""The service around the learning core: Label Studio's contract, storage, jobs, HTTP and commands."""
