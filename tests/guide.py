"""The texts of the guide that users follow, as they stand."""

CREATE = """\
/datastore create item with:
key: jobs
sortField: job-2024-03-15-001
content: {
    "report_type": "monthly",
    "department": "sales"
}
metadata: {
    "status": "not_started",
    "type": "report_generation",
    "created_at": "2024-03-15T09:00:00Z",
}
triggerUrls: {
    "http://127.0.0.1:9000/run": "your-api-key"
}
"""
QUERY_WAITING = """\
/datastore query items where:
key: jobs
metadata: {
    "status": "not_started"
}
limit: 10
"""
CLAIM = """\
/datastore update item with:
key: jobs
sortField: job-2024-03-15-001
metadata: {
    "status": "started",
    "worker_id": "worker-123",
    "started_at": "2024-03-15T10:00:00Z",
    "version": 1,
    "locked_until": "2024-03-15T10:10:00Z"
}
"""
QUERY_EXPIRED = """\
/datastore query items where:
key: jobs
metadata: {
    "status": "started",
    "locked_until": { "lt": "CURRENT_TIMESTAMP" }
}
limit: 10
"""
COMPLETE = """\
/datastore update item with triggers off:
key: jobs
sortField: job-2024-03-15-001
metadata: {
    "status": "completed",
    "completed_at": "2024-03-15T10:05:00Z",
    "result": { "success": true, "records_processed": 1000 }
}
"""
