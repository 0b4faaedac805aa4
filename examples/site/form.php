<?php
function h($s) { return htmlspecialchars((string)$s, ENT_QUOTES, 'UTF-8'); }
$errors = [
    UPLOAD_ERR_INI_SIZE => 'The file is larger than upload_max_filesize (' . ini_get('upload_max_filesize') . ').',
    UPLOAD_ERR_FORM_SIZE => 'The file is larger than the form allows.',
    UPLOAD_ERR_PARTIAL => 'The file did not arrive whole.',
    UPLOAD_ERR_NO_FILE => 'No file was chosen.',
    UPLOAD_ERR_NO_TMP_DIR => 'PHP has no folder for uploads.',
    UPLOAD_ERR_CANT_WRITE => 'PHP could not write the file.',
    UPLOAD_ERR_EXTENSION => 'A PHP extension stopped the upload.',
];
$posted = $_SERVER['REQUEST_METHOD'] === 'POST';
$file = $_FILES['file'] ?? null;
$too_large = $posted && !$file && (int)($_SERVER['CONTENT_LENGTH'] ?? 0) > 0;
?>
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>PHP upload · Weir demo</title>
  <link rel="icon" href="/favicon.svg">
  <link rel="stylesheet" href="/style.css">
</head>
<body>
<main>
  <header><img src="/favicon.svg" alt=""><h1>Upload to PHP</h1></header>
  <p class="lead">PHP <?= h(PHP_VERSION) ?>, worker <?= h(getmypid()) ?>, asked for <code><?= h($_SERVER['REQUEST_URI']) ?></code>.</p>
<?php if ($too_large): ?>
  <p class="bad">The request is larger than post_max_size (<?= h(ini_get('post_max_size')) ?>).</p>
<?php elseif ($file && $file['error'] !== UPLOAD_ERR_OK): ?>
  <p class="bad"><?= h($errors[$file['error']] ?? 'The upload failed.') ?></p>
<?php elseif ($file): ?>
  <section class="card"><table>
    <tr><th>name</th><td><?= h($file['name']) ?></td></tr>
    <tr><th>bytes</th><td id="bytes"><?= h($file['size']) ?></td></tr>
    <tr><th>SHA-1</th><td id="sha1"><code><?= h(sha1_file($file['tmp_name'])) ?></code></td></tr>
    <tr><th>note</th><td><?= h($_POST['note'] ?? '') ?></td></tr>
  </table></section>
<?php endif; ?>
  <section class="card" style="margin-top:1rem">
    <form method="post" enctype="multipart/form-data">
      <p><label>A file <input type="file" name="file"></label></p>
      <p><label>A note <input name="note" maxlength="200"></label></p>
      <button>Upload</button>
    </form>
  </section>
  <footer><a href="/">Back</a></footer>
</main>
</body>
</html>
