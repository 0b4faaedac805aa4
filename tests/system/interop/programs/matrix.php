<?php
// SPDX-License-Identifier: MIT
$query = $_SERVER['QUERY_STRING'] ?? '';
[$what, $rest] = explode('=', $query, 2) + ['', ''];
header('Content-Type: application/octet-stream');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    readfile('php://input');
} elseif ($what === 'big') {
    echo str_repeat('0123456789abcdef', 65536);
} elseif ($what === 'gone') {
    ignore_user_abort(true);
    for ($i = 0; $i < 2000 && !connection_aborted(); $i++) {
        echo str_repeat("\0", 16384);
        flush();
        usleep(10000);
    }
    if (connection_aborted()) touch($rest);
} else {
    for ($i = 0; $what === 'hold' && $i < 4000 && !file_exists($rest); $i++) {
        usleep(5000);
        clearstatcache();
    }
    if ($what === 'err') fwrite(fopen('php://stderr', 'w'), "$rest\n");
    http_response_code(203);
    header('X-Matrix: from the program');
    foreach (['REQUEST_METHOD', 'QUERY_STRING', 'HTTP_X_MATRIX', 'MATRIX_USER'] as $name) echo "$name=", $_SERVER[$name] ?? '', "\n";
}
