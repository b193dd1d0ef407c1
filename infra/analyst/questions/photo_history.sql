-- What was ever found out about one photo, oldest first? Put its image_uri in place of this one.
SELECT scored_at, run_id, status, error, box, p_value, tail_rank, is_anomaly, detector_id, image_etag
FROM scores
WHERE image_uri = 's3://inspection/archive/insulator/north/2026-03-01_0001.jpg'
ORDER BY scored_at, run_id, box;
