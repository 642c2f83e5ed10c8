Feature: Data on the disk can be checked and saved
  A directory is read whole without a change. Damage is told by file and place, with what it means.

  Scenario: A whole directory is read to the last byte
    Given a running server
    And 10 jobs in "mail"
    When the server is stopped
    And the data directory is verified
    Then the command succeeds
    And it prints "10 jobs in 1 queue"

  Scenario: A byte that changed is found
    Given a running server
    And 10 jobs in "mail"
    When the server is killed
    And a byte of the log changes
    And the data directory is verified
    Then the command ends with exit code 5
    And it prints "damaged: log/segment-"
    And it prints "restore the directory from a backup"

  Scenario: A running server is left alone
    Given a running server
    When the data directory is verified
    Then the command ends with exit code 1
    And it prints "is in use by another process"
