-- Where do the two newest detectors of a category disagree? Photos that one calls an anomaly and the other does not, those
-- first of which one is surest. Each photo stands here once, as it is now.
WITH opinions AS (
    SELECT
        *,
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
        row_number() OVER (PARTITION BY category ORDER BY max(scored_at) DESC, detector_id) AS place
    FROM scores
    WHERE status = 'scored'
    GROUP BY category, detector_id
),

ranked AS (
    SELECT opinions.*, detectors.place
    FROM opinions
    INNER JOIN detectors
        ON opinions.category = detectors.category AND opinions.detector_id = detectors.detector_id
    WHERE opinions.newest = 1 AND detectors.place <= 2
)

SELECT
    later.category,
    later.detector_id AS newest_detector,
    earlier.detector_id AS other_detector,
    later.is_anomaly AS is_anomaly_of_newest,
    later.p_value AS p_value_of_newest,
    earlier.p_value AS p_value_of_other,
    later.image_uri,
    later.box
FROM ranked AS later
INNER JOIN ranked AS earlier
    ON
        later.category = earlier.category
        AND later.image_uri = earlier.image_uri
        AND later.box IS NOT DISTINCT FROM earlier.box
        AND coalesce(later.image_etag, '') = coalesce(earlier.image_etag, '')
INNER JOIN latest
    ON
        later.category = latest.category
        AND later.image_uri = latest.image_uri
        AND later.box IS NOT DISTINCT FROM latest.box
        AND coalesce(later.image_etag, '') = coalesce(latest.image_etag, '')
WHERE later.place = 1 AND earlier.place = 2 AND later.is_anomaly <> earlier.is_anomaly AND latest.status = 'scored'
ORDER BY
    least(coalesce(later.tail_rank, later.p_value), coalesce(earlier.tail_rank, earlier.p_value)),
    later.image_uri,
    later.box;
