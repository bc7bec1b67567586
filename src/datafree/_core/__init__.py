"""What every other package uses: errors, settings, seeds, files, memory, processes. It imports no other package."""
