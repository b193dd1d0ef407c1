-- What did a new detector change? Photos with the same bytes that it and the one before it have both scored. If the share of
-- alarms moves while the photos are the same, the detector has changed, not the assets. A share is null where no anomaly was possible.
WITH opinions AS (
    SELECT
        category,
        image_uri,
        box,
        image_etag,
        detector_id,
        p_value,
        is_anomaly,
        row_number() OVER (
            PARTITION BY image_uri, image_etag, box, detector_id ORDER BY scored_at DESC, run_id DESC
        ) AS newest
    FROM scores
    WHERE status = 'scored'
),

detectors AS (
    SELECT
        category,
        detector_id,
        row_number() OVER (PARTITION BY category ORDER BY min(scored_at), detector_id) AS place
    FROM scores
    WHERE status = 'scored'
    GROUP BY category, detector_id
)

SELECT
    now.category,
    before.detector_id AS detector_before,
    now.detector_id AS detector_now,
    count(*) AS photos,
    avg(CASE WHEN before.is_anomaly THEN 1.0 WHEN NOT before.is_anomaly THEN 0.0 END) AS anomaly_share_before,
    avg(CASE WHEN now.is_anomaly THEN 1.0 WHEN NOT now.is_anomaly THEN 0.0 END) AS anomaly_share_now,
    avg(before.p_value) AS mean_p_value_before,
    avg(now.p_value) AS mean_p_value_now,
    sum(CASE WHEN now.is_anomaly AND NOT before.is_anomaly THEN 1 ELSE 0 END) AS new_alarms,
    sum(CASE WHEN before.is_anomaly AND NOT now.is_anomaly THEN 1 ELSE 0 END) AS alarms_gone
FROM opinions AS now
INNER JOIN detectors AS mine ON now.category = mine.category AND now.detector_id = mine.detector_id
INNER JOIN detectors AS other ON mine.category = other.category AND mine.place = other.place + 1
INNER JOIN opinions AS before
    ON
        before.image_uri = now.image_uri
        AND before.box IS NOT DISTINCT FROM now.box
        AND coalesce(before.image_etag, '') = coalesce(now.image_etag, '')
        AND before.category = now.category
        AND before.detector_id = other.detector_id
WHERE now.newest = 1 AND before.newest = 1
GROUP BY now.category, before.detector_id, now.detector_id
ORDER BY now.category, detector_now;
