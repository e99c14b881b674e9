"""What is computed of records: means with their spread, fits, resampling and closed forms. No file is read here."""
