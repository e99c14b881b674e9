"""What readers get of the tables: verdicts, the report, quoted numbers, the workspace, the published figures."""
